package registryproxy

import (
	"encoding/json"
	"strings"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's media types, from its registry's documentation (image manifest
// version 2, schemas 1 and 2).
const (
	dockerManifest            = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig              = "application/vnd.docker.container.image.v1+json"
	dockerSchema1             = "application/vnd.docker.distribution.manifest.v1+json"
	dockerSchema1Signed       = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	octetStream               = "application/octet-stream"
	maxManifest         int64 = 8 << 20 // bytes of a manifest that is looked into
)

// DetectMediaType derives a manifest's media type from its bytes: its own
// mediaType field if there is one, else from its shape. It returns "" if
// neither says.
//
// Not every shape is taken at its word: a document without mediaType that is a
// manifest and an index at once is nothing, since clients that differ in what
// they take it for would run different images (CVE-2021-41190).
func DetectMediaType(manifest []byte) string {
	// A map and no struct, since encoding/json matches a struct's fields
	// whatever their case is.
	var fields map[string]json.RawMessage
	if json.Unmarshal(manifest, &fields) != nil {
		return ""
	}
	if raw, ok := fields["mediaType"]; ok {
		var mediaType string
		if json.Unmarshal(raw, &mediaType) != nil {
			return ""
		}
		return specificMediaType(mediaType)
	}
	isArray := func(name string) bool { return strings.HasPrefix(string(fields[name]), "[") }
	isObject := func(name string) bool { return strings.HasPrefix(string(fields[name]), "{") }
	index := isArray("manifests")
	image := isObject("config") && isArray("layers")
	schema1 := string(fields["schemaVersion"]) == "1" && isArray("fsLayers")
	switch {
	case index && !image && !schema1 && fields["layers"] == nil && fields["config"] == nil:
		return imagespec.MediaTypeImageIndex
	case image && !index && !schema1:
		var config struct {
			MediaType string `json:"mediaType"`
		}
		if json.Unmarshal(fields["config"], &config) == nil && config.MediaType == dockerConfig {
			return dockerManifest
		}
		return imagespec.MediaTypeImageManifest
	case schema1 && !index && !image:
		if isArray("signatures") {
			return dockerSchema1Signed
		}
		return dockerSchema1
	default:
		return ""
	}
}

// specificMediaType returns a manifest's media type, or "" for one that says
// nothing: registries that are file servers send generic ones. Types other than
// application/* are nothing either; a manifest's bytes are anybody's, and
// shall not reach a browser as text/html.
func specificMediaType(s string) string {
	name, _, _ := strings.Cut(s, ";")
	name = strings.ToLower(strings.TrimSpace(name))
	kind, subtype, ok := strings.Cut(name, "/")
	if !ok || kind != "application" || !isToken(subtype) {
		return ""
	}
	switch subtype {
	case "octet-stream", "json", "xml", "xhtml+xml", "x-www-form-urlencoded":
		return ""
	}
	return s
}
