package demo

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// An image is the same each time, of about the size asked for, made of distinct
// files, and its digests are those of its bytes, compressed and not.
func TestImage(t *testing.T) {
	const size = 8 << 20
	build := func() *image {
		var last int64
		img, err := buildImage(t.Context(), t.TempDir(), size, func(n int64) {
			if n < last {
				t.Errorf("progress went from %d back to %d", last, n)
			}
			last = n
		})
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	img, again := build(), build()
	if !bytes.Equal(img.manifest, again.manifest) {
		t.Error("another image the second time")
	}
	if len(img.blobs) < 6 || img.bytes < size || img.bytes > size*3/2 {
		t.Errorf("%d blobs of %d bytes", len(img.blobs), img.bytes)
	}
	total := int64(len(img.manifest))
	files := map[string]int{}
	for i, b := range img.blobs {
		data, err := os.ReadFile(b.path)
		if err != nil {
			t.Fatal(err)
		}
		total += int64(len(data))
		if digest.FromBytes(data) != b.Digest || int64(len(data)) != b.Size {
			t.Errorf("blob %d is not what its descriptor says", i)
		}
		if b.MediaType != "application/vnd.oci.image.layer.v1.tar+gzip" {
			continue
		}
		zip, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		plain, err := io.ReadAll(zip)
		if err != nil {
			t.Fatal(err)
		}
		config, err := os.ReadFile(img.blobs[len(img.blobs)-1].path)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(config), digest.FromBytes(plain).String()) {
			t.Errorf("the config lacks layer %d's diffID", i)
		}
		archive := tar.NewReader(bytes.NewReader(plain))
		for {
			h, err := archive.Next()
			if err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if prev, ok := files[h.Name]; ok {
				t.Errorf("%s is in layers %d and %d", h.Name, prev, i)
			}
			files[h.Name] = i
		}
	}
	if total != img.bytes || len(files) != img.files {
		t.Errorf("%d bytes in %d files, the image says %d in %d", total, len(files), img.bytes, img.files)
	}
}

// A machine with too few files, some of them unreadable, gets made-up ones.
func TestImageOfFewFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "one"), []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "dangling")); err != nil {
		t.Fatal(err)
	}
	files := newWalk(t.Context(), []string{filepath.Join(dir, "missing"), dir, dir})
	defer files.stop()
	path := filepath.Join(t.TempDir(), "layer")
	d, _, count, err := writeLayer(t.Context(), path, 0, 1<<20, files, func(int64) {})
	if err != nil || d.Size < 1<<20 || count < 2 {
		t.Errorf("%d bytes in %d files, %v", d.Size, count, err)
	}
}

func TestImageIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, err := buildImage(ctx, t.TempDir(), 1<<30, func(int64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
}

// What a pull accepts: exactly the image. One wrong byte, a missing one, an error
// or a wrong manifest make it fail.
func TestPull(t *testing.T) {
	dir := t.TempDir()
	img, err := buildImage(t.Context(), dir, MinSize, func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	up, err := startUpstream(filepath.Join(dir, "origin"))
	if err != nil {
		t.Fatal(err)
	}
	defer up.stop()
	defer http.DefaultClient.CloseIdleConnections()
	if err := up.push(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	var seen atomic.Int64
	p, err := pull(t.Context(), up.addr, func(n int64) { seen.Add(n) })
	if err != nil || p.Bytes != img.bytes || p.Verified != len(img.blobs)+1 {
		t.Errorf("%+v, %v", p, err)
	}
	if up.bytes.Load() != img.bytes || seen.Load() != img.bytes-int64(len(img.manifest)) {
		t.Errorf("the origin counted %d bytes, the client %d of %d", up.bytes.Load(), seen.Load(), img.bytes)
	}

	for name, harm := range map[string]func(path string, body []byte) (int, []byte){
		"a flipped bit": func(path string, body []byte) (int, []byte) {
			if strings.Contains(path, "/blobs/") {
				body[len(body)/2] ^= 1
			}
			return 200, body
		},
		"a missing byte": func(path string, body []byte) (int, []byte) {
			if strings.Contains(path, "/blobs/") {
				body = body[:len(body)-1]
			}
			return 200, body
		},
		"another manifest": func(path string, body []byte) (int, []byte) {
			if strings.Contains(path, "/manifests/") {
				body = append(body, '\n')
			}
			return 200, body
		},
		"a refusal": func(path string, body []byte) (int, []byte) {
			if strings.Contains(path, "/blobs/") {
				return 503, nil
			}
			return 200, body
		},
	} {
		bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			up.server.Handler.ServeHTTP(rec, r)
			status, body := harm(r.URL.Path, rec.Body.Bytes())
			w.Header().Set("Docker-Content-Digest", rec.Header().Get("Docker-Content-Digest"))
			w.WriteHeader(status)
			w.Write(body)
		}))
		p, err := pull(t.Context(), strings.TrimPrefix(bad.URL, "http://"), func(int64) {})
		bad.Close()
		if err == nil || p.Verified > len(img.blobs) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

func TestJudge(t *testing.T) {
	good := func() *Report {
		return &Report{
			Image: Image{Bytes: 100},
			Nodes: []Node{
				{Node: 1, Stage: "first", Bytes: 100, Origin: 100, ReceivedOrigin: 100, Verified: 8, Digests: 8},
				{Node: 2, Stage: "together", Bytes: 100, Peer: 90, Store: 10, ReceivedPeer: 100, Verified: 8, Digests: 8},
			},
			Origin: Origin{Bytes: 101, UniqueBytes: 100, Ratio: 1.01},
		}
	}
	r := good()
	if r.judge(); !r.OK || r.Problem() != nil {
		t.Errorf("sound, but: %v", r.Problems)
	}
	for what, harm := range map[string]func(*Report){
		"1 of 8 digests":       func(r *Report) { r.Nodes[0].Verified = 1 },
		"99 bytes of 100":      func(r *Report) { r.Nodes[0].Bytes, r.Nodes[0].Origin = 99, 99 },
		"1 bytes from the or":  func(r *Report) { r.Nodes[1].ReceivedOrigin = 1 },
		"accounts for 91":      func(r *Report) { r.Nodes[1].Store = 1 },
		"5 bytes after the":    func(r *Report) { r.Origin.AfterFirst = 5 },
		"2.000 times the dist": func(r *Report) { r.Origin.Ratio = 2 },
	} {
		r := good()
		harm(r)
		if r.judge(); r.OK || r.Problem() == nil || !strings.Contains(r.Problem().Error(), what) {
			t.Errorf("%s: %v", what, r.Problems)
		}
	}
}

// Nothing that configures nodes, and no proxy, gets from here to the children.
func TestEnvironment(t *testing.T) {
	got := strings.Join(environment([]string{"PATH=/bin", "PEERCACHE_LISTEN=x", "http_proxy=y", "HTTPS_PROXY=z", "HOME=/h"}), " ")
	if got != "PATH=/bin HOME=/h" {
		t.Errorf("got %q", got)
	}
}
