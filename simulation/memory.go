package simulation

import (
	"bytes"
	"fmt"
	"math/bits"
	"os"
	"slices"
	"strconv"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/simulation/scenario"
)

// What a run takes at its peak, garbage that is not yet collected included, as
// measured (bench/README.md says how): for the program, for each node, for each
// blob that a node pulls, and for each chunk of it.
const (
	programMemory = 24 << 20
	nodeMemory    = 64 << 10
	blobMemory    = 56 << 10
	chunkMemory   = 256
	// windowMemory is what the windows of a large cluster take.
	windowMemory = 32 << 20
)

// MemoryError is a run that needs more memory than there is, or than it may take.
type MemoryError struct {
	Nodes int
	// Need is how many bytes the run takes, about; Limit is how many it may.
	Need, Limit int64
	// Free: Limit is what the machine has, and not from Options.
	Free bool
}

// Error says how much is needed, and what can be done.
func (e *MemoryError) Error() string {
	what := "allowed"
	if e.Free {
		what = "free"
	}
	size := func(n int64) string {
		if n < 1<<30 {
			return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
		}
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("simulation: %d nodes need about %s of memory, %s are %s: use --memory or fewer nodes",
		e.Nodes, size(e.Need), size(e.Limit), what)
}

// Estimate is how many bytes of memory a run takes, about: somewhat more rather
// than less.
func Estimate(run *scenario.Run) int64 {
	pulled := make([][]int, len(run.Nodes)) // images of each node
	for i := range run.Pulls {
		p := &run.Pulls[i]
		if !slices.Contains(pulled[p.Node], p.Image) {
			pulled[p.Node] = append(pulled[p.Node], p.Image)
		}
	}
	n := int64(len(run.Nodes))
	// Each node has a bit for each other, and each blob a list of all.
	sum := int64(programMemory) + n*nodeMemory + n*n/8 + 8*n*int64(len(run.Blobs))
	if n <= fullMesh {
		sum += 8 * n * n
	}
	if n >= ManyNodes {
		sum += windowMemory
	}
	costs := map[string]int64{} // of the images that a node pulls
	for _, images := range pulled {
		key := fmt.Sprint(images)
		cost, ok := costs[key]
		if !ok {
			cost = imagesMemory(run, images)
			costs[key] = cost
		}
		sum += cost
	}
	return sum
}

// imagesMemory is what the blobs of some images take in one node.
func imagesMemory(run *scenario.Run, images []int) (sum int64) {
	var blobs []int
	for _, m := range images {
		blobs = append(blobs, run.Images[m].Layers...)
		if k := run.Images[m].Manifest; k >= 0 {
			blobs = append(blobs, k)
		}
	}
	slices.Sort(blobs)
	for _, k := range slices.Compact(blobs) {
		sum += blobMemory + chunkMemory*chunksOf(&run.Blobs[k])
	}
	return sum
}

// chunksOf is how many chunks a blob has; one whose size makes no sense has none.
func chunksOf(b *scenario.Blob) int64 {
	l, err := chunkindex.LayoutFor(b.Size)
	if err != nil {
		return 0
	}
	return int64(l.Count())
}

// enough says whether there is enough memory for a run: a *MemoryError if not.
func (o *Options) enough(run *scenario.Run) error {
	limit, free := o.MemoryLimit, false
	if limit == 0 {
		ask := o.freeMemory
		if ask == nil {
			ask = freeMemory
		}
		limit, free = ask(), true
	}
	if need := Estimate(run); limit > 0 && need > limit {
		return &MemoryError{Nodes: len(run.Nodes), Need: need, Limit: limit, Free: free}
	}
	return nil
}

// freeMemory is how many bytes this process can get, 0 if nobody says: what Linux
// deems available, within the limit of the control group.
func freeMemory() int64 {
	free := int64(0)
	if data, err := os.ReadFile("/proc/meminfo"); err == nil {
		free = availableIn(data)
	}
	limit, used := number("/sys/fs/cgroup/memory.max"), number("/sys/fs/cgroup/memory.current")
	if limit > 0 && (free == 0 || limit-used < free) {
		free = max(limit-used, 1)
	}
	return free
}

// availableIn reads the line MemAvailable, which is in KiB, of /proc/meminfo.
func availableIn(meminfo []byte) int64 {
	for line := range bytes.Lines(meminfo) {
		if f := bytes.Fields(line); len(f) >= 2 && string(f[0]) == "MemAvailable:" {
			n, err := strconv.ParseInt(string(f[1]), 10, 64)
			if err != nil || bits.Len64(uint64(n)) > 52 {
				return 0
			}
			return n << 10
		}
	}
	return 0
}

// number reads a file that holds one number, 0 if there is none, or no limit ("max").
func number(file string) int64 {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(data)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
