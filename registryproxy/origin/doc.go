// Package origin is the client towards upstream registries (origins).
//
// It asks an origin for blobs, manifests, tags and lists, and hides what is
// tiresome about real registries: tokens that expire, redirects to signed URLs
// on other hosts, bodies that break off or stall, registries that refuse HEAD,
// ignore Range or leave out headers, rate limits, and registries that are
// silent, gone or broken. All requests to a host share what is known about it,
// so that the second request to a host that is down fails at once.
//
// It also decides which hosts may be contacted at all ([Client.Check]), because
// the name of the origin comes from whoever can reach the proxy.
//
// What it does not do: it caches nothing but tokens, proves no blob (its bytes
// are claims until somebody hashes them; manifests are checked, since they are
// held whole), knows no peers, and pushes nothing. It imports no other package
// of this module.
//
// # Layers of a request
//
// From the outside in, each in the file of its name:
//
//	blob, manifest, list   what is asked; which answers are good enough
//	body                   a blob's bytes, resumed where they break off
//	retry                  mirrors, then the origin; again after a pause
//	follow                 challenges and tokens, redirects without them
//	exchange               one HTTP exchange: policy, breaker, slot, timers, metrics
//	dial                   connections, and the policy on resolved addresses
package origin
