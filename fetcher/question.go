package fetcher

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// question is a Query in one canonical form, in which two nodes that mean the
// same say the same.
type question struct {
	kind       QueryKind
	origin     string
	repository string
	reference  string
	params     string // encoded, sorted by key
	accept     string // media types, lower case, sorted, joined by commas
}

func canonical(q Query) question {
	return question{kind: q.Kind, origin: q.Origin, repository: q.Repository, reference: q.Reference,
		params: q.Params.Encode(), accept: canonicalAccept(q.Accept)}
}

// fits reports whether other nodes can be asked q: clients can send fields of any
// length.
func (q question) fits() bool {
	for _, s := range []string{q.origin, q.repository, q.reference, q.params, q.accept} {
		if len(s) > maxField {
			return false
		}
	}
	return true
}

// source is where the question is put.
func (q question) source() Source { return Source{Origin: q.origin, Repository: q.repository} }

func canonicalAccept(accept []string) string {
	var types []string
	for _, header := range accept {
		for _, t := range strings.Split(header, ",") {
			t, _, _ = strings.Cut(t, ";")
			if t = strings.ToLower(strings.TrimSpace(t)); t != "" {
				types = append(types, t)
			}
		}
	}
	slices.Sort(types)
	return strings.Join(slices.Compact(types), ",")
}

// accepts reports whether a client that asked q can use an answer of a type.
func (q question) accepts(mediaType string) bool {
	if q.kind != QueryTag || q.accept == "" || mediaType == "" {
		return true
	}
	mediaType = strings.ToLower(mediaType)
	main, _, _ := strings.Cut(mediaType, "/")
	for _, t := range strings.Split(q.accept, ",") {
		if t == mediaType || t == "*/*" || t == main+"/*" {
			return true
		}
	}
	return false
}

func hashOf(fields ...string) [sha256.Size]byte {
	h := sha256.New()
	for _, s := range fields {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// topic is the same for all questions that one record answers: whatever types
// the client accepts.
func (q question) topic() string {
	sum := hashOf(q.origin, q.repository, string(q.kind), q.reference, q.params)
	return hex.EncodeToString(sum[:])
}

// key tells all questions apart.
func (q question) key() string { return q.topic() + " " + q.accept }

// announced is what is provided on the DHT by nodes that know an answer.
func (q question) announced() digest.Digest {
	sum := hashOf(q.origin, q.repository, string(q.kind), q.reference)
	return digest.NewDigestFromBytes(digest.SHA256, sum[:])
}
