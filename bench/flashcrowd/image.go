package main

import (
	"context"
	"io"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/bench/internal/rig"
)

// image is what the crowd wants.
type image struct {
	Manifest digest.Digest   `json:"manifest"`
	Layers   []digest.Digest `json:"layers"`
	// Unique is the bytes of manifest, config and layers together.
	Unique int64 `json:"unique_bytes"`

	sizes []int64         // of the layers
	all   []digest.Digest // of manifest, config and layers
}

// layer is made-up content that says that it is a tar. It is generated whenever
// it is read, so that no size of it needs memory.
type layer struct {
	rig.Content
	hash v1.Hash
}

// Digest implements v1.Layer.
func (l *layer) Digest() (v1.Hash, error) { return l.hash, nil }

// DiffID implements v1.Layer.
func (l *layer) DiffID() (v1.Hash, error) { return l.hash, nil }

// Compressed implements v1.Layer.
func (l *layer) Compressed() (io.ReadCloser, error) { return io.NopCloser(l.Reader()), nil }

// Uncompressed implements v1.Layer.
func (l *layer) Uncompressed() (io.ReadCloser, error) { return l.Compressed() }

// Size implements v1.Layer.
func (l *layer) Size() (int64, error) { return l.Content.Size, nil }

// MediaType implements v1.Layer.
func (l *layer) MediaType() (types.MediaType, error) { return types.OCIUncompressedLayer, nil }

// push makes the image and writes it to the registry, past the link and the
// proxy that counts.
func (o *origin) push(ctx context.Context) (*image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	made := &image{}
	left := int64(opts.size)
	for i := range opts.layers {
		l := &layer{Content: rig.Content{Number: contentBase*opts.seed + uint64(i), Size: left / int64(opts.layers-i)}}
		left -= l.Content.Size
		d, err := l.Content.Digest()
		if err != nil {
			return nil, err
		}
		l.hash = v1.Hash{Algorithm: d.Algorithm().String(), Hex: d.Encoded()}
		made.Layers, made.sizes = append(made.Layers, d), append(made.sizes, l.Content.Size)
		if img, err = mutate.AppendLayers(img, l); err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	manifest, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	h, err := img.Digest()
	if err != nil {
		return nil, err
	}
	n, err := img.Size()
	if err != nil {
		return nil, err
	}
	made.Manifest = digest.Digest(h.String())
	made.Unique = n + manifest.Config.Size + int64(opts.size)
	made.all = append([]digest.Digest{made.Manifest, digest.Digest(manifest.Config.Digest.String())}, made.Layers...)

	tag, err := name.NewTag(o.registryAddr+"/"+rig.Repository+":"+tagName, name.Insecure)
	if err != nil {
		return nil, err
	}
	to := []remote.Option{remote.WithContext(ctx), remote.WithTransport(o.host.Client().Transport), remote.WithJobs(2)}
	if opts.private > 0 {
		to = append(to, remote.WithAuth(&authn.Basic{Username: userName, Password: password}))
	}
	return made, remote.Write(tag, img, to...)
}
