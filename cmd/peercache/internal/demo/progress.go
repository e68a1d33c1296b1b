package demo

import (
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"
)

// progress writes one line a step, on a terminal with a percentage that moves.
type progress struct {
	w    io.Writer
	live bool
}

func newProgress(w io.Writer) *progress {
	f, ok := w.(*os.File)
	if ok {
		info, err := f.Stat()
		ok = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return &progress{w: w, live: ok}
}

// step runs fn, which reports how much of total it has done and returns what to
// say about it. total 0 means that there is no percentage.
func (p *progress) step(name string, total int64, fn func(done *atomic.Int64) (string, error)) error {
	var done atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	fmt.Fprintf(p.w, "%s ... ", name)
	go func() {
		defer close(stopped)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				if p.live && total > 0 {
					fmt.Fprintf(p.w, "\r%s ... %d%% ", name, min(100, 100*done.Load()/total))
				}
			}
		}
	}()
	said, err := fn(&done)
	close(stop)
	<-stopped
	if p.live {
		fmt.Fprintf(p.w, "\r\x1b[K%s ... ", name)
	}
	if err != nil {
		said = "failed"
	}
	fmt.Fprintln(p.w, said)
	return err
}
