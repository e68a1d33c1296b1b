package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
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

// image is one that clients want.
type image struct {
	Name     string          `json:"name"`
	Tag      string          `json:"tag"`
	Manifest digest.Digest   `json:"manifest"`
	Layers   []digest.Digest `json:"layers"`

	all []digest.Digest // of manifest, config and layers
}

// content is all that the registry has.
type content struct {
	images  []*image
	digests []digest.Digest // of the run's blobs, "" of manifests
	sizes   map[digest.Digest]int64
	// unique is the bytes of all blobs and manifests that some client wants.
	unique int64
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

// numberOf tells the contents of blobs apart, by name and seed.
func numberOf(seed uint64, blob string) uint64 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s", seed, blob))
	return binary.BigEndian.Uint64(sum[:])
}

// push makes the images and writes them to the registry, past the link and the
// proxy that counts. Besides what the run says, each has a config of some hundred
// bytes, and its manifest is as long as it is.
func (o *origin) push(ctx context.Context, e *experiment) (*content, error) {
	made := &content{sizes: map[digest.Digest]int64{}, digests: make([]digest.Digest, len(e.run.Blobs))}
	layers := make([]*layer, len(e.run.Blobs))
	for i, b := range e.run.Blobs {
		if b.Manifest {
			continue
		}
		l := &layer{Content: rig.Content{Number: numberOf(e.run.Seed, b.Name), Size: b.Size}}
		d, err := l.Content.Digest()
		if err != nil {
			return nil, err
		}
		l.hash = v1.Hash{Algorithm: d.Algorithm().String(), Hex: d.Encoded()}
		layers[i], made.digests[i] = l, d
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	for i, im := range e.run.Images {
		one, err := o.pushImage(ctx, e, fmt.Sprintf("v%d", i+1), im.Layers, layers, made)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", im.Name, err)
		}
		one.Name = im.Name
		made.images = append(made.images, one)
	}
	wanted := map[digest.Digest]bool{}
	for _, p := range e.run.Pulls {
		for _, d := range made.images[p.Image].all {
			if !wanted[d] {
				wanted[d] = true
				made.unique += made.sizes[d]
			}
		}
	}
	return made, nil
}

func (o *origin) pushImage(ctx context.Context, e *experiment, tagName string, of []int, layers []*layer, made *content) (*image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	one := &image{Tag: tagName}
	var err error
	for _, b := range of {
		if img, err = mutate.AppendLayers(img, layers[b]); err != nil {
			return nil, err
		}
		d := digest.Digest(layers[b].hash.String())
		one.Layers = append(one.Layers, d)
		made.sizes[d] = layers[b].Content.Size
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
	config := digest.Digest(manifest.Config.Digest.String())
	one.Manifest = digest.Digest(h.String())
	made.sizes[one.Manifest], made.sizes[config] = n, manifest.Config.Size
	one.all = append([]digest.Digest{one.Manifest, config}, one.Layers...)

	tag, err := name.NewTag(o.registryAddr+"/"+rig.Repository+":"+tagName, name.Insecure)
	if err != nil {
		return nil, err
	}
	to := []remote.Option{remote.WithContext(ctx), remote.WithTransport(o.host.Client().Transport), remote.WithJobs(2)}
	if e.private() {
		to = append(to, remote.WithAuth(&authn.Basic{Username: userName, Password: password}))
	}
	return one, remote.Write(tag, img, to...)
}
