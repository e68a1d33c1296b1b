package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	ggcr "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

// OriginRole is the role of an origin: go-containerregistry's registry with its
// blobs in a directory, which is the argument. It needs the name "origin".
func OriginRole(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	quiet := log.New(io.Discard, "", 0)
	s := &http.Server{
		Handler:           registry.New(registry.Logger(quiet), registry.WithBlobHandler(newBlobs(args[0]))),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          quiet,
	}
	if _, err := fmt.Fprintf(out, "%q\n", "http://"+l.Addr().String()); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, in) // ends with who started us
	}()
	go func() {
		select {
		case <-ctx.Done():
		case <-ended:
		}
		s.Close()
	}()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// blobs are the registry's own blobs in a directory, but that their size is asked
// of the file system. The original hashes the whole blob for it, before each
// response, which no registry in use does: it would hide what a node adds, and
// add itself wherever a node asks for a size.
type blobs struct {
	registry.BlobHandler
	registry.BlobPutHandler
	dir string
}

func newBlobs(dir string) *blobs {
	h := registry.NewDiskBlobHandler(dir)
	return &blobs{h, h.(registry.BlobPutHandler), dir}
}

// Stat implements registry.BlobStatHandler.
func (b *blobs) Stat(_ context.Context, _ string, h ggcr.Hash) (int64, error) {
	info, err := os.Stat(filepath.Join(b.dir, h.Algorithm, h.Hex))
	if errors.Is(err, os.ErrNotExist) {
		return 0, registry.ErrNotFound
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Origin is a registry in a process of its own.
type Origin struct {
	*Process
	URL string
}

// StartOrigin starts an origin.
func (r *Rig) StartOrigin(ctx context.Context) (*Origin, error) {
	dir := filepath.Join(r.Dir, "origin")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	o := &Origin{}
	var err error
	o.Process, _, _, err = r.StartRole(ctx, "origin", &o.URL, dir)
	return o, err
}

// BlobURL is where the origin itself has a blob.
func (o *Origin) BlobURL(d digest.Digest) string {
	return fmt.Sprintf("%s/v2/%s/blobs/%s", o.URL, Repository, d)
}

// Push uploads a blob.
func (o *Origin) Push(ctx context.Context, c Content) (v1.Descriptor, error) {
	d, err := c.Digest()
	if err != nil {
		return v1.Descriptor{}, err
	}
	desc := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: d, Size: c.Size}
	return desc, o.upload(ctx, http.MethodPost, "blobs/uploads/?digest="+d.String(), "application/octet-stream", c.Reader(), c.Size)
}

// PushManifest uploads a manifest with these layers under a tag. The config is
// the first layer: nobody here runs the image.
func (o *Origin) PushManifest(ctx context.Context, tag string, layers []v1.Descriptor) error {
	body, err := json.Marshal(v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		Config: layers[0], Layers: layers,
	})
	if err != nil {
		return err
	}
	return o.upload(ctx, http.MethodPut, "manifests/"+tag, v1.MediaTypeImageManifest, bytes.NewReader(body), int64(len(body)))
}

func (o *Origin) upload(ctx context.Context, method, what, mediaType string, body io.Reader, n int64) error {
	req, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("%s/v2/%s/%s", o.URL, Repository, what), io.NopCloser(body))
	if err != nil {
		return err
	}
	req.ContentLength = n
	req.Header.Set("Content-Type", mediaType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		message, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return fmt.Errorf("pushing: %s: %s", resp.Status, message)
	}
	return nil
}
