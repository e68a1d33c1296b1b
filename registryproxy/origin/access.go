package origin

import (
	"context"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
)

// publicLifetime is how long a repository counts as public after it was read
// without credentials, and how long nobody tries again whether it can be.
const publicLifetime = time.Hour

// access is what is known of who may read a repository: nothing, as long as it
// is zero.
type access struct {
	public  time.Time // it was last read without credentials
	private bool      // and since then with credentials only, or not at all
	tried   time.Time // it was last tried without: see Anybody
}

func (a access) isPublic() bool { return !a.private && within(a.public) }

func within(at time.Time) bool { return !at.IsZero() && time.Since(at) < publicLifetime }

// learnAccess notes how a repository was read: whether without credentials, so
// that anybody can. An answer of a mirror says nothing about that: it may be
// nearer, or kinder, to this node than to others. Nor do credentials that were
// sent mean that they were needed, if it is known that they are not. A refusal
// ends what was known.
func (c *Client) learnAccess(t *target, ep *endpoint, q *call, resp *http.Response, personal bool) {
	if ep.base != t.endpoints[len(t.endpoints)-1].base {
		return
	}
	c.changeAccess(accessKey(t, q.src), func(a *access) {
		switch resp.StatusCode {
		case http.StatusOK, http.StatusPartialContent:
			if !personal {
				a.public, a.private = time.Now(), false
			} else if !a.isPublic() {
				a.private = true
			}
		case http.StatusUnauthorized, http.StatusForbidden:
			a.private = true
		}
	})
}

func (c *Client) changeAccess(key string, change func(a *access)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, _ := c.access.get(key, nil)
	change(&a)
	c.access.set(key, a)
}

func accessKey(t *target, src Source) string { return t.name + "\n" + src.Repository }

// Public reports whether anybody can read a repository, as far as that is known:
// whether the origin itself (not a mirror) gave something of it without
// credentials, with none at all or with a token that the token server gives to
// anybody, within the last hour. It is known not to be public where the origin
// has since refused, or was read with credentials only. It never blocks.
func (c *Client) Public(src Source) (public, known bool) {
	t, err := c.target(src.Origin)
	if err != nil {
		return false, false
	}
	a, _ := c.access.get(accessKey(t, src), nil)
	return a.isPublic(), a.isPublic() || a.private
}

// Anybody is Public, and finds out where the answer would be no: it asks the
// origin itself (not a mirror) once, without credentials, to describe content
// that is there, a manifest by tag or digest or a blob. It tries so once an hour
// for each repository, whatever comes of it. That is a question on the side: it
// tells nothing about the origin's health, and is not asked while that is in
// doubt. If ctx ends first, the answer is false, and the true one is there for
// the next who asks.
func (c *Client) Anybody(ctx context.Context, src Source, reference string, blob bool) bool {
	t, d, err := c.manifestSource(src, reference)
	if err != nil || blob && d == "" {
		return false
	}
	if public, _ := c.Public(src); public {
		return true
	}
	ep := t.endpoints[len(t.endpoints)-1].anonymous()
	if hl, _ := c.host(t, ep.base).health(time.Now()); hl.State != OK || hl.Cooldown > 0 {
		return false
	}
	tried := false
	c.changeAccess(accessKey(t, src), func(a *access) {
		if tried = within(a.tried); !tried {
			a.tried = time.Now()
		}
	})
	if tried {
		return false
	}
	done := make(chan struct{})
	if !c.spawn(func() {
		defer close(done)
		c.try(t, ep, src, reference, d, blob)
	}) {
		return false
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
	public, _ := c.Public(src)
	return public
}

// try asks an endpoint about content; learnAccess hears of the answer.
func (c *Client) try(t *target, ep *endpoint, src Source, reference string, d digest.Digest, blob bool) {
	ctx, cancel := context.WithTimeout(c.ctx, probeTimeout)
	defer cancel()
	q := manifestCall(src, http.MethodHead, reference, nil)
	if blob {
		q = blobCall(src, http.MethodHead, d)
	}
	q.kind = kindProbe
	if resp, err := c.follow(ctx, t, ep, q); err == nil {
		resp.Body.Close()
	}
}
