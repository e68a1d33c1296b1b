package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	// maxEvent bounds a line of a stream; 64 blobs with 64 neighbours each are
	// about 1 MB.
	maxEvent = 16 << 20
	// watchSilence is how long a node may send neither event nor comment.
	watchSilence = 5 * time.Second
)

// errEnded says that the node ended the stream.
var errEnded = errors.New("it stops")

// Watch hands each snapshot of the node whose admin server is at addr (HOST:PORT)
// to each, with the JSON that it came as, until ctx ends, the stream does, or each
// fails; that is its error, never nil. Both are each's to keep.
func Watch(ctx context.Context, addr string, each func(l Live, raw []byte) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/watch", nil)
	if err != nil {
		return err
	}
	resp, err := ask(req, addr)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	silence := time.AfterFunc(watchSilence, func() {
		cancel(fmt.Errorf("nothing came for %s", watchSilence))
	})
	defer silence.Stop()
	alive := func() { silence.Reset(watchSilence) }
	err = readEvents(resp.Body, alive, func(event string, data []byte) error {
		if event == "end" {
			return errEnded
		}
		var l Live
		if err := json.Unmarshal(data, &l); err != nil || l.ID == "" {
			return errors.New("an event without a snapshot")
		}
		return each(l, data)
	})
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return fmt.Errorf("the node at %s has gone: %w", addr, err)
}

// readEvents parses a stream of server-sent events as far as /watch uses them:
// one line of data each, "event" for a name, comments. It ends with the error
// of the stream, io.ErrUnexpectedEOF for its end, or with that of each.
func readEvents(r io.Reader, alive func(), each func(event string, data []byte) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxEvent)
	var event string
	var data []byte
	for lines.Scan() {
		alive()
		field, value, _ := bytes.Cut(lines.Bytes(), []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "":
			if len(lines.Bytes()) > 0 {
				continue // a comment
			}
			if data != nil {
				if err := each(event, data); err != nil {
					return err
				}
			}
			event, data = "", nil
		case "event":
			event = string(value)
		case "data":
			data = bytes.Clone(value)
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}
