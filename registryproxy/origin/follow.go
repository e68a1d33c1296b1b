package origin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// maxRedirects bounds a chain of redirects. Registries need one or two.
const maxRedirects = 5

// call is a question to an origin, wherever it is asked.
type call struct {
	kind   kind
	method string
	src    Source
	path   string // begins with /v2/
	query  url.Values
	header http.Header
	limit  time.Time // when to stop waiting for headers; zero: Options decide
}

func (q *call) String() string { return q.method + " " + q.src.Origin + q.path }

// follow asks an endpoint, meets its challenges and follows its redirects.
//
// Authorization is sent to the endpoint's own host only, and only once that
// has asked for it. A host that it redirects to gets none (it goes by the
// signature in the URL, and may refuse a request that holds both), unless it
// challenges itself: then with an anonymous token, as registry.k8s.io's
// backends may want. Range and Accept go everywhere.
func (c *Client) follow(ctx context.Context, t *target, ep *endpoint, q *call) (*http.Response, error) {
	u := ep.url(q.path, q.query)
	visited := make(map[string]bool)
	var authorization token    // what to send to foreign, if anything
	personal := false          // credentials of this node's were sent
	foreign := ""              // the host that authorization is for, if not the endpoint's
	tried := map[string]bool{} // hosts whose challenge has been met once
	for {
		h := c.host(t, u)
		own := h.key == ep.host
		send := token{}
		switch {
		case !own && foreign == h.key:
			send = authorization
		case own:
			if ch := h.challenged(); ch != nil {
				var err error
				send, err = c.authorization(ctx, t, ep, h.key, ch, q.src.Repository, "")
				var e *Error
				if err != nil && (!errors.As(err, &e) || e.unreachable || tried[h.key]) {
					return nil, err
				}
				// A token server that refuses is no reason not to ask: the
				// origin may not want a token for everything.
			}
		}
		personal = personal || send.personal
		resp, err := c.send(ctx, t, q, u, send.header)
		if err != nil {
			return nil, err
		}

		if resp.StatusCode == http.StatusUnauthorized && !tried[h.key] {
			ch := findChallenge(resp.Header, q.src.Repository)
			if ch == nil {
				c.learnAccess(t, ep, q, resp, personal)
				return resp, nil
			}
			tried[h.key] = true
			credentials := ep
			if own {
				h.setChallenge(ch)
			} else {
				credentials, foreign = nil, h.key
			}
			again, err := c.authorization(ctx, t, credentials, h.key, ch, q.src.Repository, send.header)
			if err == nil && again.header == "" {
				c.learnAccess(t, ep, q, resp, personal)
				return resp, nil // nothing else to offer: the 401 stands
			}
			resp.Body.Close()
			if err != nil {
				return nil, err
			}
			if !own {
				authorization = again
			}
			continue
		}

		if !isRedirect(resp) {
			c.learnAccess(t, ep, q, resp, personal)
			return resp, nil
		}
		next, err := u.Parse(resp.Header.Get("Location"))
		resp.Body.Close()
		visited[u.String()] = true
		switch {
		case err != nil:
			return nil, badAnswer(q, "a redirect to a malformed URL")
		case visited[next.String()]:
			return nil, badAnswer(q, "a redirect in a circle")
		case len(visited) > maxRedirects:
			return nil, badAnswer(q, fmt.Sprintf("more than %d redirects", maxRedirects))
		}
		next.Fragment, next.User = "", nil
		u = next
	}
}

// send sends a call to u.
func (c *Client) send(ctx context.Context, t *target, q *call, u *url.URL, authorization string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, q.method, u.String(), nil)
	if err != nil {
		return nil, badAnswer(q, "a redirect to a malformed URL")
	}
	for name, values := range q.header {
		req.Header[name] = values
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	return c.exchange(ctx, t, q.kind, req, q.limit)
}

func isRedirect(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return resp.Header.Get("Location") != ""
	}
	return false
}

// badAnswer is the error for an answer that makes no sense.
func badAnswer(q *call, what string) *Error {
	return &Error{
		Status: http.StatusBadGateway, Code: CodeUnknown, final: true,
		Message: fmt.Sprintf("%s: %s", q, what),
	}
}

func (h *host) challenged() *challenge {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.challenge
}

func (h *host) setChallenge(ch *challenge) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.challenge = ch
}
