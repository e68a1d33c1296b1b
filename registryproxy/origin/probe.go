package origin

import (
	"context"
	"net/http"
	"time"
)

// probeTimeout is how long a probe may take. It is longer than a connection may
// (Options.Dial), and short enough to notice soon that a host is back.
const probeTimeout = 5 * time.Second

// probeIfDue asks a failed host, in the background, whether it is back, if it
// is time for that and nobody is doing it already.
func (c *Client) probeIfDue(t *target, h *host) {
	start := time.Now()
	if !h.takeProbe(start) {
		return
	}
	if !c.spawn(func() {
		ok, why := c.probe(t, h)
		h.probed(start, time.Now(), ok, why)
		if !ok {
			// What was idle when the host fell silent is of no use any more.
			t.transport.CloseIdleConnections()
		} else {
			c.log(t, "origin answers again", "origin", t.name, "endpoint", h.key)
		}
	}) {
		h.probed(start, time.Now(), false, errClosed.Error())
	}
}

// probe asks a host for as little as possible. Any answer will do, also that
// authentication is required, unless it says that there is no service.
func (c *Client) probe(t *target, h *host) (ok bool, why string) {
	ctx, cancel := context.WithTimeout(c.ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.probe.String(), nil)
	if err != nil {
		return false, err.Error()
	}
	resp, err := c.exchange(ctx, t, kindProbe, req, time.Time{})
	if err != nil {
		return false, err.Error()
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return false, "status " + resp.Status
	}
	return true, ""
}
