package demo

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
)

// descriptor is an OCI content descriptor.
type descriptor struct {
	MediaType string        `json:"mediaType"`
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"`
}

// image is an image on its way to the origin: its manifest, and where the blobs
// that it names lie.
type image struct {
	manifest []byte
	blobs    []blobFile
	files    int
	bytes    int64 // of all blobs and the manifest: what a pull moves
}

type blobFile struct {
	descriptor
	path string
}

// shares are the sizes of the layers in per cent: one that dominates and some
// smaller ones, as images have. What is left goes into a last layer below one
// chunk, which takes the way of small blobs.
var shares = []int64{40, 24, 16, 12, 8}

const smallLayer = 600 << 10

// roots are the folders of this machine that have files worth caching, in the
// order of preference.
func roots() []string {
	return []string{"/usr/local/go", "/usr/lib", "/usr/share", "/usr/bin", "/usr/local", "/opt", "/System/Library", "/Library"}
}

// maxFile keeps one large file from being a layer of its own.
const maxFile = 64 << 20

// buildImage writes an image of about size bytes into dir: tar+gzip layers of
// distinct files of this machine, each file in one layer only. The same files
// give the same image. Files that cannot be read are left out; where a machine
// has too few, made-up ones fill the gap.
func buildImage(ctx context.Context, dir string, size int64, progress func(done int64)) (*image, error) {
	files := newWalk(ctx, roots())
	defer files.stop()
	img := &image{}
	var diffIDs []digest.Digest
	var layers []descriptor
	for i := 0; i <= len(shares); i++ {
		want := int64(smallLayer)
		if i < len(shares) {
			want = size * shares[i] / 100
		}
		path := filepath.Join(dir, fmt.Sprintf("layer-%d", i))
		d, diffID, n, err := writeLayer(ctx, path, i, want, files, func(done int64) { progress(img.bytes + done) })
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i+1, err)
		}
		img.blobs = append(img.blobs, blobFile{d, path})
		img.files += n
		img.bytes += d.Size
		diffIDs, layers = append(diffIDs, diffID), append(layers, d)
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": runtime.GOOS,
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	})
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "config")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		return nil, err
	}
	d := descriptor{string(types.OCIConfigJSON), digest.FromBytes(config), int64(len(config))}
	img.blobs = append(img.blobs, blobFile{d, path})
	img.manifest, err = json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": types.OCIManifestSchema1, "config": d, "layers": layers,
	})
	img.bytes += d.Size + int64(len(img.manifest))
	return img, err
}

// writeLayer writes a gzipped tar of at least want bytes.
func writeLayer(ctx context.Context, path string, number int, want int64, files *walk, progress func(int64)) (_ descriptor, diffID digest.Digest, count int, err error) {
	f, err := os.Create(path)
	if err != nil {
		return descriptor{}, "", 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	compressed := &hashedCounter{h: sha256.New()}
	out := bufio.NewWriterSize(io.MultiWriter(f, compressed), 1<<20)
	// Speed: the demo is about moving bytes, not about making them few.
	zip, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return descriptor{}, "", 0, err
	}
	plain := &hashedCounter{h: sha256.New()}
	archive := tar.NewWriter(io.MultiWriter(zip, plain))
	for compressed.n+int64(out.Buffered()) < want {
		if err := ctx.Err(); err != nil {
			return descriptor{}, "", 0, err
		}
		left := want - compressed.n - int64(out.Buffered())
		name, data, ok := files.next(left)
		if !ok {
			name, data = made(number, count, min(left, 4<<20))
		}
		// Nothing but name, size and bytes: owners and times would make the
		// image another one each time.
		header := &tar.Header{Name: name, Size: int64(len(data)), Mode: 0o644, Typeflag: tar.TypeReg, Format: tar.FormatPAX, ModTime: time.Unix(0, 0)}
		if err := archive.WriteHeader(header); err != nil {
			return descriptor{}, "", 0, err
		}
		if _, err := archive.Write(data); err != nil {
			return descriptor{}, "", 0, err
		}
		count++
		if err := zip.Flush(); err != nil {
			return descriptor{}, "", 0, err
		}
		progress(compressed.n)
	}
	if err := errors.Join(archive.Close(), zip.Close(), out.Flush()); err != nil {
		return descriptor{}, "", 0, err
	}
	return descriptor{string(types.OCILayer), compressed.digest(), compressed.n}, plain.digest(), count, nil
}

// made returns a file that no compression makes smaller, the same each time.
func made(layer, number int, n int64) (string, []byte) {
	var seed [32]byte
	copy(seed[:], fmt.Sprintf("peercache demo %d %d", layer, number))
	data := make([]byte, n)
	_, _ = rand.NewChaCha8(seed).Read(data) // never fails
	return fmt.Sprintf("made/%d/%d", layer, number), data
}

type hashedCounter struct {
	h hash.Hash
	n int64
}

func (c *hashedCounter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return c.h.Write(p)
}

func (c *hashedCounter) digest() digest.Digest { return digest.NewDigest(digest.SHA256, c.h) }

// walk hands out the regular files below some roots, in lexical order, each once.
type walk struct {
	found chan string
	quit  context.CancelFunc
}

func newWalk(ctx context.Context, roots []string) *walk {
	ctx, quit := context.WithCancel(ctx)
	w := &walk{found: make(chan string), quit: quit}
	go func() {
		defer close(w.found)
		seen := map[string]bool{}
		for _, root := range roots {
			root, err := filepath.EvalSymlinks(root)
			if root == "" || err != nil || seen[root] {
				continue
			}
			seen[root] = true
			// What cannot be read is passed over, by the function and so by WalkDir.
			_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
				if path != root && seen[path] || err != nil && d != nil && d.IsDir() {
					return fs.SkipDir // walked already, or unreadable
				}
				if d == nil || !d.Type().IsRegular() {
					return nil
				}
				select {
				case w.found <- path:
					return nil
				case <-ctx.Done():
					return fs.SkipAll
				}
			})
		}
	}()
	return w
}

// stop ends the walk and waits for it.
func (w *walk) stop() {
	w.quit()
	for range w.found {
	}
}

// next reads the next file, at most about four times as long as what is left to
// fill, so that the last one doesn't overshoot.
func (w *walk) next(left int64) (name string, data []byte, ok bool) {
	for path := range w.found {
		info, err := os.Stat(path)
		if err != nil || info.Size() == 0 || info.Size() > min(maxFile, 4*left+64<<10) {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil || len(data) == 0 {
			continue
		}
		return filepath.ToSlash(path)[1:], data, true
	}
	return "", nil, false
}
