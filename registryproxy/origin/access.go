package origin

import "net/http"

// learnAccess notes how a repository was read: whether without credentials, so
// that anybody can. An answer of a mirror says nothing about that: it may be
// nearer, or kinder, to this node than to others. A refusal ends what was known.
func (c *Client) learnAccess(t *target, ep *endpoint, q *call, resp *http.Response, personal bool) {
	switch resp.StatusCode {
	case http.StatusOK, http.StatusPartialContent:
		anybody := !personal && ep == t.endpoints[len(t.endpoints)-1]
		c.access.set(accessKey(t, q.src), anybody)
	case http.StatusUnauthorized, http.StatusForbidden:
		c.access.set(accessKey(t, q.src), false)
	}
}

func accessKey(t *target, src Source) string { return t.name + "\n" + src.Repository }

// Public reports whether the last successful answer about a repository was had
// from the origin itself (not a mirror) without credentials: with none at all, or with a token that the
// token server gives to anybody. False where nothing is known. It never blocks.
func (c *Client) Public(src Source) bool {
	t, err := c.target(src.Origin)
	if err != nil {
		return false
	}
	public, _ := c.access.get(accessKey(t, src), nil)
	return public
}
