// Package registryproxy is the side of Peercache that container runtimes talk
// to: an [net/http.Handler] that speaks the pull side of the OCI distribution
// specification 1.1 (https://github.com/opencontainers/distribution-spec) to
// containerd, CRI-O, Podman, Docker and BuildKit.
//
// It turns a request into a question for a [Backend] and the answer into a
// response: routes, names, the origin that a request means, ranges, conditional
// requests, headers, error bodies, and what happens to a connection when a body
// cannot be finished.
//
// What it is not: it fetches, stores and verifies nothing, holds no
// credentials, decides nothing about which origin may be contacted, and accepts
// no push. It never applies or removes a content encoding, since a digest is
// over the bytes as distributed.
//
// # Routes
//
//	/v2/                                      GET, HEAD
//	/v2/<name>/manifests/<tag|digest>         GET, HEAD
//	/v2/<name>/blobs/<digest>                 GET, HEAD, single byte ranges
//	/v2/<name>/tags/list                      GET, HEAD; n, last
//	/v2/<name>/referrers/<digest>             GET, HEAD; artifactType
//
// The origin of <name> is, in this order, the query parameter ns (which
// containerd and BuildKit send: "Registry Proxying" in the specification), the
// first component of <name> if it looks like a host (it holds a '.' or a ':',
// or is localhost: Podman and CRI-O with a mirror location that has a path), or
// the configured default (Docker's registry-mirrors say nothing).
//
// # Failing
//
// Clients fall back to the origin by themselves when they get an error status,
// and mostly cannot when a body stalls, so every failure that is known before
// the first body byte becomes an OCI error, and every later one a broken
// connection; errors.go has the table. Nothing waits for ever: a Backend that
// delivers no byte within Options.StallTimeout, and a client that takes none
// within Options.ClientTimeout, end the request.
package registryproxy
