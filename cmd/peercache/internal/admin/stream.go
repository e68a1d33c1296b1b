package admin

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"time"
)

const (
	// watchEvery is the time between two events of a stream.
	watchEvery = 500 * time.Millisecond
	// watchWrite is how long one event may take to be written: whoever reads
	// slower is let go of, and loses nothing that the next snapshot does not say.
	watchWrite = 10 * time.Second
	// maxWatchers bounds the streams at once.
	maxWatchers = 16
)

// watch serves GET /watch: an endless stream of server-sent events (WHATWG HTML,
// section 9.2), each with a [Live] as its data, and a comment in place of each
// that cannot be had. Snapshots are taken when they are written and never queued,
// so that a slow reader sees fewer of them and holds up nobody. The stream ends
// with an event named "end" when the node stops serving.
func (h *Handler) watch(w http.ResponseWriter, r *http.Request, log *slog.Logger) {
	s, ok := h.ready(w)
	if !ok {
		return
	}
	select {
	case h.watchers <- struct{}{}:
		defer func() { <-h.watchers }()
	default:
		http.Error(w, fmt.Sprintf("%d are watching already", maxWatchers), http.StatusTooManyRequests)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no") // nginx would hold events back
	control := http.NewResponseController(w)
	// send reports whether the stream goes on.
	send := func(format string, args ...any) bool {
		err := control.SetWriteDeadline(time.Now().Add(watchWrite))
		if err == nil {
			_, err = fmt.Fprintf(w, format, args...)
		}
		if err == nil {
			err = control.Flush()
		}
		if err != nil {
			log.Debug("a watcher is gone", "err", err)
		}
		return err == nil
	}
	// What comes next on the connection has no deadline.
	defer func() { _ = control.SetWriteDeadline(time.Time{}) }()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for going := true; going; {
		live, err := s.live()
		if err == nil {
			// JSON on one line: a line break would end the data.
			var data []byte
			if data, err = json.Marshal(live); err == nil {
				going = send("data: %s\n\n", data)
			}
		}
		if err != nil {
			going = send(": no snapshot now\n\n")
		}
		if !going {
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		case <-s.over:
			send("event: end\ndata: %q\n\n", h.state.Load().why)
			return
		}
	}
}
