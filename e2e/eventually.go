//go:build e2e && linux

package e2e

import (
	"testing"
	"time"
)

// eventually returns once check returns nil, and fails the test with the last
// error after the limit. It looks often enough that what it waits for is not
// made slower by it.
func eventually(t testing.TB, limit time.Duration, what string, check func() error) {
	t.Helper()
	err := check()
	if err == nil {
		return
	}
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-deadline.C:
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		case <-tick.C:
			if err = check(); err == nil {
				return
			}
		}
	}
}

// must returns v, or fails the test.
func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
