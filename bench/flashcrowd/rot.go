package main

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/peercache/peercache/bench/internal/rig"
)

// flip changes a byte of each MiB in a file that will have this size, once it is
// written, as a disk may that loses bits. It ends with ctx, or with the file.
func (p *plan) flip(ctx context.Context, file string, size int64) {
	var f *os.File
	err := rig.Await(ctx, time.Hour, "the file is there", func() (ok bool, err error) {
		f, err = os.OpenFile(file, os.O_RDWR, 0)
		return err == nil, err
	})
	if err != nil {
		return
	}
	defer f.Close()
	left := make([]int64, 0, size/mib+1)
	for off := int64(0); off < size; off += mib {
		left = append(left, off)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for len(left) > 0 {
		left = slices.DeleteFunc(left, func(off int64) bool {
			if !flipIn(f, off, min(off+mib, size)) {
				return false
			}
			p.mu.Lock()
			p.flipped++
			p.mu.Unlock()
			return true
		})
		if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
			return // complete, and moved: not to be spoiled any more
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// flipIn changes a bit in the middle of what is written from off to end, if it is.
func flipIn(f *os.File, off, end int64) bool {
	zeros := make([]byte, 32)
	tail := make([]byte, len(zeros))
	// Content is random: that it has 32 zeros there is not to be feared.
	at := max(off, end-int64(len(tail)))
	if n, err := f.ReadAt(tail, at); n < int(end-at) || (err != nil && n == 0) || bytes.Equal(tail, zeros) {
		return false
	}
	middle := off + (end-off)/2
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, middle); err != nil {
		return false
	}
	b[0] ^= 0x10
	_, err := f.WriteAt(b, middle)
	return err == nil
}

// rot spoils a part of what nodes hold now, once: a byte in so many of the MiB that are
// written, complete blobs too.
func (p *plan) rot(d *deed) error {
	random := rand.New(rand.NewPCG(p.c.e.run.Seed, uint64(d.Line)))
	for _, i := range d.Nodes {
		for _, b := range p.c.e.wants(i) {
			partial, size := p.fileOf(i, b)
			hex := filepath.Base(partial)
			algorithm := filepath.Base(filepath.Dir(partial))
			for _, file := range []string{partial, filepath.Join(rig.StoreDir(p.c.members[i].data), "blobs", algorithm, hex[:2], hex)} {
				if err := p.rotFile(file, size, d.Part, random); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (p *plan) rotFile(file string, size int64, part int, random *rand.Rand) error {
	info, err := os.Stat(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// What is complete cannot be written to by its owner's own care; a disk does not ask.
	if info.Mode().Perm()&0o200 == 0 {
		if err := os.Chmod(file, info.Mode().Perm()|0o200); err != nil {
			return err
		}
		defer os.Chmod(file, info.Mode().Perm()) //nolint:errcheck // as it was, if it is still there
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // it has moved
	}
	if err != nil {
		return err
	}
	defer f.Close()
	for off := int64(0); off < size; off += mib {
		if random.IntN(1_000_000) < part && flipIn(f, off, min(off+mib, size)) {
			p.mu.Lock()
			p.flipped++
			p.mu.Unlock()
		}
	}
	return nil
}
