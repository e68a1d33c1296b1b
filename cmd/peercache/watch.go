package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/peercache/peercache/cmd/peercache/internal/admin"
)

const (
	// minInterval is how often a view may be drawn; snapshots come twice a second.
	minInterval = 100 * time.Millisecond
	// reconnect is the pause before a node that has gone is looked for again.
	reconnect = time.Second
)

// snapshot is what came from the node: a live view with its JSON, or why there is
// none any more.
type snapshot struct {
	live admin.Live
	raw  []byte
	gone error
}

// watch shows what the node at addr is at work on, at most once an interval, until
// ctx ends; that is no error. A node that cannot be reached at first is one; a
// node that goes away later is waited for.
func (p *program) watch(ctx context.Context, addr string, asJSON bool, interval time.Duration) error {
	// Whatever ends this ends the goroutine below, which hands over nothing more.
	ctx, cancel := context.WithCancel(ctx)
	news, done := make(chan snapshot), make(chan struct{})
	defer func() { cancel(); <-done }()
	go func() {
		defer close(done)
		follow(ctx, addr, func(s snapshot) error {
			select {
			case news <- s:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()

	screen := newScreen(p.stdout, p.env)
	var history admin.History
	var met, lost bool // ever, and now
	var latest []byte
	tick := time.NewTicker(interval)
	defer tick.Stop()
	// draw shows the latest snapshot, if there is one that was not shown yet.
	draw := func() (err error) {
		switch {
		case latest == nil:
			return nil
		case asJSON:
			_, err = p.stdout.Write(append(latest, '\n'))
		default:
			err = screen.show(history.Draw(screen.size()))
		}
		latest = nil
		return err
	}
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			err = draw()
		case s := <-news:
			switch {
			case s.gone == nil:
				first := !met || lost
				met, lost, latest = true, false, s.raw
				history.Add(s.live)
				if first {
					err = draw()
				}
			case !met && !errors.Is(s.gone, admin.ErrNotServing):
				return s.gone
			case !lost:
				lost = true
				text := fmt.Sprintf("%v; waiting for it", s.gone)
				latest, history = nil, admin.History{}
				if asJSON {
					_, err = fmt.Fprintf(p.stderr, "peercache: %s\n", text)
				} else {
					err = screen.show([]string{text})
				}
			}
		}
		if err != nil {
			return err
		}
	}
}

// follow hands over what comes from the node, and looks for it again when it has
// gone, until ctx ends.
func follow(ctx context.Context, addr string, hand func(snapshot) error) {
	for {
		err := admin.Watch(ctx, addr, func(l admin.Live, raw []byte) error {
			return hand(snapshot{live: l, raw: raw})
		})
		if hand(snapshot{gone: err}) != nil {
			return
		}
		pause := time.NewTimer(reconnect)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
	}
}

// screen shows views one after the other: on a terminal each in the place of the
// one before, elsewhere as blocks with an empty line between them.
type screen struct {
	w        io.Writer
	terminal *os.File // nil if w is none
	colour   bool
	drawn    []string // on the terminal now
}

// newScreen finds out what w is. NO_COLOR (no-color.org) and a dumb terminal
// forbid colours.
func newScreen(w io.Writer, env func(string) string) *screen {
	s := &screen{w: w}
	if f, ok := w.(*os.File); ok && env("TERM") != "dumb" {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull {
			s.terminal, s.colour = f, env("NO_COLOR") == ""
		}
	}
	return s
}

// size is that of the terminal now: it may change at any time.
func (s *screen) size() admin.Screen {
	if s.terminal == nil {
		return admin.Screen{}
	}
	columns, rows := terminalSize(s.terminal)
	if columns <= 0 || rows <= 0 {
		columns, rows = 80, 24
	}
	return admin.Screen{Width: columns, Height: rows, Colour: s.colour}
}

// show writes a view at once, so that it does not flicker.
func (s *screen) show(lines []string) error {
	var b strings.Builder
	if s.terminal == nil {
		if len(s.drawn) > 0 {
			b.WriteString("\n")
		}
		for _, l := range lines {
			b.WriteString(strings.TrimRight(l, " ") + "\n")
		}
	} else {
		b.WriteString(redraw(s.drawn, lines, s.size().Width))
	}
	s.drawn = lines
	_, err := io.WriteString(s.w, b.String())
	return err
}

// redraw is what makes a terminal of a width show lines in the place of old ones,
// below which the cursor stands. The terminal may have become narrower since, and
// folded them.
func redraw(old, lines []string, width int) string {
	var b strings.Builder
	up := 0
	for _, l := range old {
		up += 1 + max(0, visible(l)-1)/max(1, width)
	}
	if up > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", up)
	}
	b.WriteString("\r")
	for _, l := range lines {
		b.WriteString(l + "\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	return b.String()
}

// visible is how many characters of a line are seen.
func visible(l string) int {
	n := 0
	for len(l) > 0 {
		if rest, ok := strings.CutPrefix(l, "\x1b["); ok {
			_, l, _ = strings.Cut(rest, "m")
			continue
		}
		_, size := utf8.DecodeRuneInString(l)
		n, l = n+1, l[size:]
	}
	return n
}
