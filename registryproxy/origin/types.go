package origin

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// Source says where content is to be had: a repository of an origin.
type Source struct {
	Origin     string // as clients name it: docker.io, registry.test:5000
	Repository string // library/alpine
}

// ListKind is what is listed.
type ListKind string

// The lists of a registry.
const (
	Tags      ListKind = "tags"      // GET /v2/R/tags/list
	Referrers ListKind = "referrers" // GET /v2/R/referrers/DIGEST
)

// Descriptor is what a tag points to at an origin.
type Descriptor struct {
	Digest    digest.Digest
	Size      int64
	MediaType string
	// Date is the origin's own Date header; zero if it sent none.
	Date time.Time
	// Manifest is the manifest itself where it had to be fetched to know the
	// rest (an origin without HEAD or Docker-Content-Digest), else nil.
	Manifest *Manifest
}

// Manifest is a whole manifest. Its bytes hash to Digest.
type Manifest struct {
	Body      []byte
	MediaType string
	Digest    digest.Digest
	// Date is the origin's own Date header; zero if it sent none.
	Date time.Time
}

// List is a list of tags or referrers as the origin sent it.
type List struct {
	Body      []byte
	MediaType string
	// Link is the path and query of the next page relative to the origin
	// ("/v2/R/tags/list?n=2&last=b"), or empty.
	Link string
	// FiltersApplied is the header OCI-Filters-Applied.
	FiltersApplied string
}

// State is how an origin has been answering.
type State string

// The states of an origin.
const (
	// OK: it answers, or nobody has asked yet.
	OK State = "ok"
	// Suspect: somebody has been waiting for longer than usual. Requests still
	// go out.
	Suspect State = "suspect"
	// Open: the circuit breaker is open; requests fail at once while a probe
	// asks from time to time.
	Open State = "open"
)

// Health is the state of one host that belongs to an origin.
type Health struct {
	Origin    string    `json:"origin"`
	Endpoint  string    `json:"endpoint"` // scheme and host
	State     State     `json:"state"`
	Since     time.Time `json:"since"`
	LastError string    `json:"lastError,omitempty"`
	// Cooldown is how long the origin has asked to be left alone yet.
	Cooldown time.Duration `json:"cooldown,omitempty"`
}
