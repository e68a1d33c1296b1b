package rig

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// Memory is what a process holds, in bytes, as /proc/<pid>/status has it.
type Memory struct {
	Anon int64 `json:"anon"` // RssAnon
	File int64 `json:"file"` // RssFile: page cache that is mapped
	RSS  int64 `json:"rss"`  // VmRSS
	Peak int64 `json:"peak"` // VmHWM, the most that RSS ever was
}

// Memory reads what the process holds now.
func (p *Process) Memory() (m Memory, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return m, err
	}
	found := 0
	for line := range bytes.Lines(data) {
		fields := bytes.Fields(line)
		if len(fields) != 3 || string(fields[2]) != "kB" {
			continue
		}
		var to *int64
		switch string(fields[0]) {
		case "RssAnon:":
			to = &m.Anon
		case "RssFile:":
			to = &m.File
		case "VmRSS:":
			to = &m.RSS
		case "VmHWM:":
			to = &m.Peak
		default:
			continue
		}
		n, err := strconv.ParseInt(string(fields[1]), 10, 64)
		if err != nil {
			return m, err
		}
		*to = n << 10
		found++
	}
	if found != 4 {
		return m, fmt.Errorf("/proc/%d/status has %d of 4 fields: has the process ended?", p.PID(), found)
	}
	return m, nil
}

// Sampler reads a process's memory again and again.
type Sampler struct {
	stop chan struct{}
	wg   sync.WaitGroup

	samples []Memory // read after stop
	err     error
}

// Sample begins to read p's memory at once and then every so often.
func (p *Process) Sample(every time.Duration) *Sampler {
	s := &Sampler{stop: make(chan struct{})}
	s.wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			m, err := p.Memory()
			if err != nil {
				s.err = err
				return
			}
			s.samples = append(s.samples, m)
			select {
			case <-tick.C:
			case <-s.stop:
				return
			}
		}
	})
	return s
}

// Stop ends the sampling, once, and returns what was read.
func (s *Sampler) Stop() ([]Memory, error) {
	close(s.stop)
	s.wg.Wait()
	return s.samples, s.err
}
