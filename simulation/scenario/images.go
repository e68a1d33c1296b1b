package scenario

import (
	"fmt"
	"math/rand/v2"
	"strconv"
)

// minLayer is the least size of a layer whose size is drawn, so that none comes out empty.
const minLayer = 100

// imageSet says which images an entry of the list stands for: from the index first on,
// count times versions of them, the versions of one next to each other.
type imageSet struct{ first, n int }

// imageNames gives each name that a pull may use the images that it stands for.
func (s *Scenario) imageNames() (sets []imageSet, names map[string][]int) {
	names = map[string][]int{}
	index := 0
	for i := range s.Images {
		img := &s.Images[i]
		sets = append(sets, imageSet{first: index, n: int(img.Count * img.Versions)})
		for k := range int(img.Count) {
			for v := range int(img.Versions) {
				number, version := img.part(k, v)
				seen := map[string]bool{}
				for _, name := range []string{img.Name, img.Name + number, img.Name + version, img.Name + number + version} {
					if !seen[name] {
						seen[name] = true
						names[name] = append(names[name], index)
					}
				}
				index++
			}
		}
	}
	return sets, names
}

// part is what the k-th image's v-th version has behind the name.
func (img *image) part(k, v int) (number, version string) {
	if img.Count > 1 {
		number = "-" + strconv.Itoa(k+1)
	}
	if img.Versions > 1 {
		version = ":" + strconv.Itoa(v+1)
	}
	return number, version
}

// own says how many layers of its own an image has, and how many of them all versions
// share, and the bytes of both.
func (img *image) own() (layers, shared int, size, sharedSize int64) {
	l := &img.Layers
	if len(l.list) > 0 {
		for _, s := range l.list {
			size += int64(s)
		}
		most := mulDiv(size, int64(img.Shared), whole)
		for _, s := range l.list {
			if sharedSize+int64(s) > most {
				break
			}
			sharedSize += int64(s)
			shared++
		}
		return len(l.list), shared, size, sharedSize
	}
	layers, size = int(l.Count), int64(l.Size)
	switch img.Shared {
	case 0:
	case whole:
		shared, sharedSize = layers, size
	default:
		shared = int((int64(layers)*int64(img.Shared) + whole/2) / whole)
		shared = min(max(shared, 1), layers-1)
		sharedSize = mulDiv(size, int64(img.Shared), whole)
	}
	return layers, shared, size, sharedSize
}

// split parts size into n layers, which are spread from the mean.
func split(rng *rand.Rand, n int, size int64, spread part) []int64 {
	if n == 0 {
		return nil
	}
	weights, sum := make([]int64, n), int64(0)
	for i := range weights {
		weights[i] = whole
		if spread > 0 {
			weights[i] += rng.Int64N(2*int64(spread)+1) - int64(spread)
		}
		sum += weights[i]
	}
	sizes := make([]int64, n)
	upTo, before := int64(0), int64(0)
	for i, w := range weights {
		upTo += w
		end := mulDiv(size, upTo, sum)
		sizes[i] = end - before
		before = end
	}
	return sizes
}

func (c *checker) checkImages() {
	if len(c.Images) == 0 {
		c.fail("images", "is missing or empty: there is nothing to pull")
		return
	}
	before := len(c.r.errs)
	type have struct {
		layers int
		size   int64
	}
	known := map[string]have{} // of each entry
	all, blobs, unique := int64(0), int64(0), int64(0)
	for i := range c.Images {
		img := &c.Images[i]
		path := fmt.Sprintf("images[%d]", i)
		if !word.MatchString(img.Name) {
			c.fail(path+".name", "%q is not a name of letters, digits, -, _ and .", img.Name)
		}
		if _, twice := known[img.Name]; twice {
			c.fail(path+".name", "%q is the name of another image too", img.Name)
		}
		if img.Count < 1 {
			c.fail(path+".count", "must be at least 1")
			continue
		}
		if img.Versions < 1 {
			c.fail(path+".versions", "must be at least 1")
			continue
		}
		all += int64(min(img.Count, maxImages)) * int64(min(img.Versions, maxImages))
		if all > maxImages {
			c.fail(path, "more than %d images", maxImages)
			return
		}
		if img.Manifest < 1 || img.Manifest > 4<<20 {
			c.fail(path+".manifest", "must be from 1B to 4MiB")
		}
		if img.Config > 16<<20 {
			c.fail(path+".config", "must be at most 16MiB")
		}
		base, ok := known[img.Base]
		if img.Base != "" && !ok {
			c.fail(path+".base", "%q is not the name of an image that stands before it", img.Base)
		}
		known[img.Name] = have{}
		wrong := len(c.r.errs)
		if c.checkLayers(path, img); len(c.r.errs) > wrong {
			continue // sums could be anything
		}
		layers, _, size, sharedSize := img.own()
		versions := size*int64(img.Versions) - sharedSize*int64(img.Versions-1)
		if mulExceeds(versions, int64(img.Count), maxUnique-unique) {
			c.fail(path, "all images together have more than 4TiB")
			return
		}
		unique += versions * int64(img.Count)
		layers, size = layers+base.layers, size+base.size
		if layers > maxLayers {
			c.fail(path+".layers", "%d layers are more than %d", layers, maxLayers)
		}
		if size > maxImage {
			c.fail(path+".layers", "the image has more than 1TiB")
		}
		known[img.Name] = have{min(layers, maxLayers), min(size, maxImage)}
		if blobs += int64(img.Count) * int64(img.Versions) * int64(layers+2); blobs > maxBlobs {
			c.fail(path, "more than %d blobs", maxBlobs)
			return
		}
	}
	if len(c.r.errs) > before {
		return
	}
	sets, names := c.imageNames()
	for i := range c.Images {
		img := &c.Images[i]
		path := fmt.Sprintf("images[%d]", i)
		if len(names[img.Name]) != sets[i].n {
			c.fail(path+".name", "%q is a name that another image's count gives it too", img.Name)
		}
		if img.Base != "" && len(names[img.Base]) != 1 {
			c.fail(path+".base", "%q stands for %d images; the base must be one without count and versions", img.Base, len(names[img.Base]))
		}
		for k := range int(img.Count) {
			if number, _ := img.part(k, 0); number != "" && len(names[img.Name+number]) != int(img.Versions) {
				c.fail(path+".name", "%q is the name of another image too", img.Name+number)
			}
		}
	}
}

func (c *checker) checkLayers(path string, img *image) {
	l := &img.Layers
	at := path + ".layers"
	switch {
	case !c.given(at):
		if img.Base == "" {
			c.fail(path, "has no layers: an image needs layers, such as 640MiB, or a base")
		}
		l.Count = 0
		if img.Versions > 1 || img.Count > 1 {
			c.fail(path, "all would be the same: without layers of its own it has its base's")
		}
		return
	case len(l.list) > maxLayers:
		c.fail(at, "%d layers are more than %d", len(l.list), maxLayers)
		return
	case len(l.list) > 0:
		sum := int64(0)
		for i, s := range l.list {
			if s < 1 || int64(s) > maxLayer {
				c.fail(fmt.Sprintf("%s[%d]", at, i), "a layer has from 1B to 1TiB")
				return
			}
			sum += int64(s)
		}
		if sum > maxImage {
			c.fail(at, "the image has more than 1TiB")
			return
		}
	default:
		if c.given(at+".count") && (l.Count < 1 || l.Count > maxLayers) {
			c.fail(at+".count", "must be from 1 to %d; an image without layers is empty", maxLayers)
			l.Count = 1
		}
		if l.Size < 1 {
			c.fail(at+".size", "is missing or 0: the image is empty")
			return
		}
		if int64(l.Size) > maxImage {
			c.fail(at+".size", "is more than 1TiB")
			return
		}
		if l.Spread < 0 || l.Spread > whole*9/10 {
			c.fail(at+".spread", "must be from 0%% to 90%%")
			l.Spread = 0
		}
		if c.given(at+".count") && int64(l.Size) < minLayer*int64(l.Count) {
			c.fail(at+".size", "is less than %d bytes a layer", minLayer)
			return
		}
	}
	if img.Shared < 0 {
		c.fail(path+".shared", "must not be negative")
		return
	}
	if img.Shared == 0 {
		return
	}
	layers, shared, size, sharedSize := img.own()
	switch {
	case img.Versions < 2:
		c.fail(path+".shared", "needs versions of at least 2")
	case shared == 0:
		c.fail(path+".shared", "no layer lies wholly within the first %s: layers are shared as wholes", percent(int64(img.Shared)))
	case len(l.list) > 0 || img.Shared == whole:
	case layers < 2:
		c.fail(path+".shared", "needs at least 2 layers: layers are shared as wholes")
	case sharedSize < minLayer*int64(shared) || size-sharedSize < minLayer*int64(layers-shared):
		c.fail(path+".shared", "leaves less than %d bytes a layer", minLayer)
	}
}

// images spells out the images and blobs.
func (e *expander) images() {
	run := e.run
	add := func(b Blob) int {
		run.Blobs = append(run.Blobs, b)
		return len(run.Blobs) - 1
	}
	layersOf := map[string][]int{} // of each entry's last image, without the config
	for i := range e.s.Images {
		img := &e.s.Images[i]
		for k := range int(img.Count) {
			number, _ := img.part(k, 0)
			name := img.Name + number
			rng := stream(e.seed, "image "+name)
			n, shared, size, sharedSize := img.own()
			drawn := func(n int, size int64, from int) []int64 {
				if len(img.Layers.list) == 0 {
					return split(rng, n, size, img.Layers.Spread)
				}
				sizes := make([]int64, n)
				for j := range sizes {
					sizes[j] = int64(img.Layers.list[from+j])
				}
				return sizes
			}
			common := append([]int(nil), layersOf[img.Base]...)
			for j, s := range drawn(shared, sharedSize, 0) {
				common = append(common, add(Blob{Name: fmt.Sprintf("%s/layer-%d", name, j), Size: s}))
			}
			for v := range int(img.Versions) {
				_, version := img.part(k, v)
				full := name + version
				layers := append([]int(nil), common...)
				for j, s := range drawn(n-shared, size-sharedSize, shared) {
					layers = append(layers, add(Blob{Name: fmt.Sprintf("%s/layer-%d", full, shared+j), Size: s}))
				}
				layersOf[img.Name] = layers
				made := Image{Name: full, Manifest: add(Blob{Name: full + "/manifest", Size: int64(img.Manifest), Manifest: true})}
				made.Layers = append(made.Layers, layers...)
				if img.Config > 0 {
					made.Layers = append(made.Layers, add(Blob{Name: full + "/config", Size: int64(img.Config), Config: true}))
				}
				run.Images = append(run.Images, made)
			}
		}
	}
}
