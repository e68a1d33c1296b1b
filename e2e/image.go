//go:build e2e && linux

package e2e

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const mib = 1 << 20

// greeting is what the runnable image prints: the line, and a word that only
// its largest layer holds.
const greeting = "hello from peercache's end-to-end test"

// contents returns n bytes that are the same for the same seed: random ones,
// with a page of text in every four, so that they compress a little, as layers
// do.
func contents(seed uint64, n int) []byte {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	data := make([]byte, n)
	rand.NewChaCha8(key).Read(data)
	line := fmt.Appendf(nil, "a line of text that compresses well, number %d\n", seed)
	for page := 0; page+4096 <= n; page += 4 * 4096 {
		for i := page; i < page+4096; i += copy(data[i:page+4096], line) {
		}
	}
	return data
}

type file struct {
	name string
	mode int64
	data []byte
}

// layerOf returns a gzip layer with the given files, compressed once.
func layerOf(t testing.TB, files ...file) v1.Layer {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		w.Write(f.data)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(buf.Bytes())), nil
	}, tarball.WithCompressionLevel(1), tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// fileLayer returns a layer whose only file holds contents(seed, size).
func fileLayer(t testing.TB, seed uint64, size int) v1.Layer {
	t.Helper()
	return layerOf(t, file{name: fmt.Sprintf("data/%d", seed), mode: 0o644, data: contents(seed, size)})
}

// imageOf returns an OCI image for linux on the architecture.
func imageOf(t testing.TB, arch string, entrypoint []string, layers ...v1.Layer) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.AppendLayers(img, layers...)
	if err != nil {
		t.Fatal(err)
	}
	cfg := must[*v1.ConfigFile](t)(img.ConfigFile())
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", arch
	cfg.Config.Entrypoint = entrypoint
	return must[v1.Image](t)(mutate.ConfigFile(img, cfg))
}

// runnable is the image that containers are run from: seven layers, over 200 MB
// compressed, with busybox and an entrypoint that prints [greeting] and the
// SHA-256 of the file in the largest layer.
var runnable struct {
	once  sync.Once
	image v1.Image
	size  int64 // of its layers
}

// runnableImage builds it, once for all tests.
func runnableImage(t testing.TB) v1.Image {
	t.Helper()
	runnable.once.Do(func() {
		busybox := must[[]byte](t)(os.ReadFile("/bin/busybox"))
		script := fmt.Sprintf("#!/bin/sh\necho %q\n/bin/sha256sum < /data/6\n", greeting)
		layers := []v1.Layer{layerOf(t,
			file{"bin/busybox", 0o755, busybox}, file{"bin/sh", 0o755, busybox},
			file{"bin/sha256sum", 0o755, busybox}, file{"greet", 0o755, []byte(script)},
		)}
		for i, size := range []int{100 << 10, 3 * mib, 20 * mib, 40 * mib, 80 * mib, 130 * mib} {
			layers = append(layers, fileLayer(t, uint64(i+1), size))
		}
		img := imageOf(t, "amd64", []string{"/greet"}, layers...)
		for _, l := range layers {
			n, err := l.Size()
			if err != nil {
				t.Fatal(err)
			}
			runnable.size += n
		}
		if runnable.size < 200e6 || len(layers) < 5 {
			t.Fatalf("the image has %d layers and %d bytes: too small for what it is to show", len(layers), runnable.size)
		}
		runnable.image = img
	})
	if runnable.image == nil {
		t.Fatal("the runnable image was not built; see the first test that wanted it")
	}
	return runnable.image
}

// platformIndex returns an OCI index of two images for linux/amd64 and
// linux/arm64, with one layer of size each.
func platformIndex(t testing.TB, seed uint64, size int) (index v1.ImageIndex, amd64, arm64 v1.Image) {
	t.Helper()
	amd64 = imageOf(t, "amd64", nil, fileLayer(t, seed, size))
	arm64 = imageOf(t, "arm64", nil, fileLayer(t, seed+1, size))
	index = mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex),
		mutate.IndexAddendum{Add: amd64, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: arm64, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}},
	)
	return index, amd64, arm64
}

// schema2List returns a docker manifest list with one schema 2 image for
// linux/amd64.
func schema2List(t testing.TB, seed uint64, size int) (list v1.ImageIndex, image v1.Image) {
	t.Helper()
	l := fileLayer(t, seed, size)
	compressed := must[io.ReadCloser](t)(l.Compressed())
	defer compressed.Close()
	data := must[[]byte](t)(io.ReadAll(compressed))
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.DockerManifestSchema2), types.DockerConfigJSON)
	img, err := mutate.Append(base, mutate.Addendum{Layer: static.NewLayer(data, types.DockerLayer)})
	if err != nil {
		t.Fatal(err)
	}
	cfg := must[*v1.ConfigFile](t)(img.ConfigFile()).DeepCopy()
	cfg.OS, cfg.Architecture = "linux", "amd64"
	// A static layer's diffID is its digest; the real one makes it unpackable.
	cfg.RootFS.DiffIDs = []v1.Hash{must[v1.Hash](t)(l.DiffID())}
	image = must[v1.Image](t)(mutate.ConfigFile(img, cfg))
	return mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.DockerManifestList),
		mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
	), image
}

// layersOf returns an image's layer descriptors.
func layersOf(t testing.TB, img v1.Image) []v1.Descriptor {
	t.Helper()
	return must[*v1.Manifest](t)(img.Manifest()).Layers
}

// largest returns the largest of an image's layers.
func largest(t testing.TB, img v1.Image) v1.Descriptor {
	t.Helper()
	var most v1.Descriptor
	for _, d := range layersOf(t, img) {
		if d.Size > most.Size {
			most = d
		}
	}
	return most
}

// diskUse adds up the sizes of the regular files under dir, as stored.
func diskUse(t testing.TB, dir string) (n int64) {
	t.Helper()
	filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
		return nil
	})
	return n
}
