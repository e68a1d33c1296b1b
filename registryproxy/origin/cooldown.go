package origin

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Cooldown: a host that answers 429, or 503 with Retry-After, is left alone for
// as long as it asks, up to Options.MaxCooldown, by all requests. Registries
// meter manifests, not layers (Docker Hub does), so a 429 on a manifest or list
// does not hold up blobs, on which an image half pulled depends; a 429 on a
// blob, and a 503, hold up everything.

// pause starts or extends a cooldown. It returns how long it lasts.
func (h *host) pause(k kind, resp *http.Response, now time.Time, longest time.Duration) time.Duration {
	wait := retryAfter(resp.Header.Get("Retry-After"), now)
	h.mu.Lock()
	defer h.mu.Unlock()
	if wait <= 0 {
		// 1, 2, 4, … seconds for those that don't say.
		wait = time.Second << min(h.throttled, 5)
		h.throttled++
	}
	wait = min(wait, longest)
	until := &h.pauseAll
	if k.metered() && resp.StatusCode == http.StatusTooManyRequests {
		until = &h.pauseMetered
	}
	if end := now.Add(wait); end.After(*until) {
		*until = end
	}
	return wait
}

// Cooldown leaves an origin alone for wait, or for Options.MaxCooldown if that is
// less, because somebody else was asked to: requests to it fail at once, with
// Retry-After, as after a 429 or 503 of its own on a blob. A pause that is longer
// already stays. Mirrors are asked as before. An origin that may not be
// contacted is ignored. It never blocks.
//
// Whoever says so to this node can hold it off the origin for that long, and no
// longer without saying it again.
func (c *Client) Cooldown(origin string, wait time.Duration) {
	t, err := c.target(origin)
	if err != nil || wait <= 0 {
		return
	}
	h := c.host(t, t.endpoints[len(t.endpoints)-1].base)
	h.mu.Lock()
	defer h.mu.Unlock()
	if end := time.Now().Add(min(wait, c.opts.MaxCooldown)); end.After(h.pauseAll) {
		h.pauseAll = end
	}
}

// unthrottled notes an answer that was no refusal.
func (h *host) unthrottled() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.throttled = 0
}

// paused is how long a request of kind k has to wait yet, or at most 0.
func (h *host) paused(k kind, now time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	wait := h.pauseAll.Sub(now)
	if k.metered() {
		wait = max(wait, h.pauseMetered.Sub(now))
	}
	return wait
}

// retryAfter parses the header of that name, RFC 9110 section 10.2.3: seconds
// or a date. It returns 0 for anything else and for dates in the past.
func retryAfter(s string, now time.Time) time.Duration {
	s = strings.TrimSpace(s)
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(t.Sub(now), 0)
	}
	return 0
}
