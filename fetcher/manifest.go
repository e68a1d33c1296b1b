package fetcher

import (
	"encoding/json"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// Media types that a manifest which does not name its own is known by.
const (
	typeOCIManifest = "application/vnd.oci.image.manifest.v1+json"
	typeOCIIndex    = "application/vnd.oci.image.index.v1+json"
	typeSchema1     = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// maxDescriptors bounds what is remembered of one manifest.
const maxDescriptors = 4096

// parsedManifest is what this package wants of a manifest.
type parsedManifest struct {
	mediaType   string
	descriptors []manifestDescriptor
}

type manifestDescriptor struct {
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"`
	MediaType string        `json:"mediaType"`
	kind      Kind
}

// parseManifest reads an OCI manifest or index, or a docker schema 2 manifest or
// list. What cannot be read, or makes no sense, is left out: it serves as hints
// only.
func parseManifest(body []byte) (m parsedManifest) {
	var doc struct {
		SchemaVersion int                  `json:"schemaVersion"`
		MediaType     string               `json:"mediaType"`
		Config        *manifestDescriptor  `json:"config"`
		Layers        []manifestDescriptor `json:"layers"`
		Blobs         []manifestDescriptor `json:"blobs"`
		Manifests     []manifestDescriptor `json:"manifests"`
	}
	if json.Unmarshal(body, &doc) != nil {
		return m
	}
	switch {
	case doc.MediaType != "":
		m.mediaType = doc.MediaType
	case doc.SchemaVersion == 1:
		m.mediaType = typeSchema1
	case doc.Manifests != nil:
		m.mediaType = typeOCIIndex
	case doc.Config != nil || doc.Layers != nil:
		m.mediaType = typeOCIManifest
	}
	add := func(kind Kind, ds ...manifestDescriptor) {
		for _, d := range ds {
			if d.Size < 0 || d.Size > chunkindex.MaxBlobSize || d.Digest.Validate() != nil || len(m.descriptors) == maxDescriptors {
				continue
			}
			d.kind = kind
			if kind != KindManifest {
				d.MediaType = ""
			}
			m.descriptors = append(m.descriptors, d)
		}
	}
	if doc.Config != nil {
		add(KindConfig, *doc.Config)
	}
	add(KindLayer, doc.Layers...)
	add(KindLayer, doc.Blobs...)
	add(KindManifest, doc.Manifests...)
	return m
}

// manifestType returns the media type of a stored manifest, and remembers what
// it says.
func (f *Fetcher) manifestType(d digest.Digest, sb StoredBlob) string {
	h, _ := f.hints.get(d)
	if h.parsed {
		return h.mediaType
	}
	if sb.Size() > maxSmall {
		return h.mediaType
	}
	body, err := io.ReadAll(io.NewSectionReader(sb.File(), 0, sb.Size()))
	if err != nil {
		f.log.Error("reading a stored manifest", "digest", d, "err", err)
		return h.mediaType
	}
	f.hints.learn(d, body, h.mediaType)
	h, _ = f.hints.get(d)
	return h.mediaType
}

// knownSize is a blob's size where somebody has told, else -1.
func (f *Fetcher) knownSize(ref Ref) int64 {
	if h, ok := f.hints.get(ref.Digest); ok && h.size >= 0 {
		return h.size
	}
	if info, err := f.store.Stat(ref.Digest); err == nil {
		return info.Size
	}
	return -1
}

// rawDigest is a digest's bytes.
func rawDigest(d digest.Digest) []byte {
	c, err := chunkindex.CID(d)
	if err != nil {
		return nil
	}
	mh := c.Hash()
	return mh[len(mh)-d.Algorithm().Size():]
}
