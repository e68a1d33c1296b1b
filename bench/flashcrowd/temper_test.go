package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peercache/peercache/simulation/scenario"
)

func moody(origin scenario.Origin) *temper {
	return newTemper(&scenario.Run{Origin: origin})
}

func (t *temper) now(ip string, manifest bool) mood {
	m, leave := t.meet(context.Background(), ip, manifest)
	leave()
	return m
}

func TestTroublesBeginAndEnd(t *testing.T) {
	te := moody(scenario.Origin{})
	for _, c := range []struct {
		fault scenario.Fault
		want  mood
	}{
		{scenario.Fault{Kind: scenario.OriginError, Status: 503}, mood{status: 503}},
		{scenario.Fault{Kind: scenario.OriginThrottle, Delay: 3 * time.Second}, mood{status: 429, wait: 3 * time.Second}},
		{scenario.Fault{Kind: scenario.ExpiredToken}, mood{status: 401}},
		{scenario.Fault{Kind: scenario.OriginOutage}, mood{cut: 1}},
		{scenario.Fault{Kind: scenario.OriginReset, Part: 1_000_000}, mood{cut: 2}},
	} {
		end := te.begin(c.fault, []string{"10.0.0.1"})
		if got := te.now("10.0.0.1", false); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.fault.Kind, got, c.want)
		}
		if got := te.now("10.0.0.2", false); got != (mood{}) {
			t.Errorf("%s befalls others: %+v", c.fault.Kind, got)
		}
		end()
		if got := te.now("10.0.0.1", false); got != (mood{}) {
			t.Errorf("%s does not end: %+v", c.fault.Kind, got)
		}
	}
}

func TestStallLastsUntilItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		te := moody(scenario.Origin{})
		end := te.begin(scenario.Fault{Kind: scenario.OriginStall}, nil)
		time.AfterFunc(5*time.Second, end)
		start := time.Now()
		if got := te.now("10.0.0.1", false); got.cut != 1 || time.Since(start) != 5*time.Second {
			t.Errorf("%+v after %s", got, time.Since(start))
		}
	})
}

func TestLimitsOfRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		te := moody(scenario.Origin{Delay: time.Second, Limits: []scenario.RateLimit{
			{Requests: 2, Window: time.Minute, Manifests: true}, {Requests: 3, Window: 10 * time.Second, PerNode: true}}})
		status := func(ip string, manifest bool) int { return te.now(ip, manifest).status }
		// Each answer takes a second. The third manifest is one too many, whoever asks.
		got := []int{status("a", true), status("b", true), status("c", true), status("a", false), status("a", false), status("a", false), status("b", false)}
		want := []int{0, 0, 429, 0, 0, 429, 0}
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("%v, want %v", got, want)
			}
		}
		time.Sleep(10 * time.Second)
		if s := status("a", false); s != 0 {
			t.Errorf("a new window: %d", s)
		}
		if m := te.now("a", true); m.status != 429 || m.wait > time.Minute || m.wait < 40*time.Second {
			t.Errorf("the manifests' window lasts: %+v", m)
		}
		te.forget()
		if s := status("a", true); s != 0 {
			t.Errorf("after forget: %d", s)
		}
	})
}

func TestConnectionsAtOnce(t *testing.T) {
	te := moody(scenario.Origin{Connections: 1})
	_, leave := te.meet(context.Background(), "a", false)
	if m := te.now("b", false); m.status != http.StatusServiceUnavailable {
		t.Errorf("one more: %+v", m)
	}
	leave()
	if m := te.now("b", false); m.status != 0 {
		t.Errorf("one: %+v", m)
	}
}

func TestPaceOfAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		te := moody(scenario.Origin{Connection: 1000})
		start := time.Now()
		w := te.pace(t.Context(), io.Discard, "a")
		for range 100 {
			if n, err := w.Write(make([]byte, 1000)); n != 1000 || err != nil {
				t.Fatal(n, err)
			}
		}
		// The first write goes at once.
		if took := time.Since(start); took != 99*time.Second {
			t.Errorf("%s for 100 s", took)
		}
	})
}

// A front in a bad mood answers with what the mood says, and breaks off what it says.
func TestFrontHasATemper(t *testing.T) {
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, strings.Repeat("x", 1000))
	}))
	defer registry.Close()
	f := newFront(registry.Listener.Addr().String(), http.DefaultTransport)
	f.temper = moody(scenario.Origin{})
	front := httptest.NewServer(f)
	defer front.Close()
	get := func() (status int, n int64, err error) {
		resp, err := http.Get(front.URL + "/v2/a/blobs/sha256:00")
		if err != nil {
			return 0, 0, err
		}
		defer resp.Body.Close()
		n, err = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, n, err
	}
	end := f.temper.begin(scenario.Fault{Kind: scenario.OriginThrottle, Delay: 1500 * time.Millisecond}, nil)
	if status, _, _ := get(); status != 429 {
		t.Errorf("throttled: %d", status)
	}
	end()
	end = f.temper.begin(scenario.Fault{Kind: scenario.OriginReset, Part: 1_000_000}, nil)
	if status, n, err := get(); status != 200 || n != 500 || err == nil {
		t.Errorf("reset: %d with %d bytes, %v", status, n, err)
	}
	end()
	end = f.temper.begin(scenario.Fault{Kind: scenario.OriginOutage}, nil)
	if _, _, err := get(); err == nil {
		t.Error("an outage answers")
	}
	end()
	if status, n, err := get(); status != 200 || n != 1000 || err != nil {
		t.Errorf("well again: %d with %d bytes, %v", status, n, err)
	}
	if c, _ := f.snapshot(); c.Bytes != 1500 || c.Requests[getBlob] != (tally{OK: 2, Other: 1}) {
		t.Errorf("counted %+v", c)
	}
}
