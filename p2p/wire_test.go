package p2p

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"testing"

	"github.com/peercache/peercache/chunkindex"
)

func FuzzDecodeRequest(f *testing.F) {
	for _, r := range []RangeRequest{
		{digestOf("a"), 0, 0}, {digestOf("a"), 0, -1}, {digestOf("b"), 1 << 20, 1 << 20},
		{digestOf("c"), chunkindex.MaxBlobSize, chunkindex.MaxBlobSize},
	} {
		f.Add(appendRequest(nil, r))
	}
	f.Add([]byte{})
	f.Add([]byte{0x80, 0})
	f.Add([]byte{3, 'a', ':', 'b', 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeRequest(data)
		if err != nil {
			if !errors.Is(err, ErrProtocol) || r != (RangeRequest{}) {
				t.Fatalf("%v, %v", r, err)
			}
			return
		}
		if err := r.valid(); err != nil {
			t.Fatalf("decoded %v, which is not valid: %v", r, err)
		}
		if again := appendRequest(nil, r); !bytes.Equal(again, data) {
			t.Fatalf("%x decodes to %v, which encodes to %x", data, r, again)
		}
	})
}

func FuzzDecodeResponse(f *testing.F) {
	for _, h := range []responseHeader{
		{Status: statusNotFound}, {Status: statusFailed}, {Size: 0}, {Size: 10, Length: 10},
		{Size: chunkindex.MaxBlobSize, Length: 1, Claims: make([]chunkindex.Claim, 2)},
		{Size: 1, Length: 1, Claims: make([]chunkindex.Claim, MaxClaims)},
		{Status: statusBusy}, {Status: statusBusy, Peers: nodeIDs(1)}, {Status: statusBusy, Peers: nodeIDs(MaxAlternatives)},
		{Status: statusBusy, Peers: nodeIDs(MaxAlternatives + 1)},
	} {
		f.Add(appendResponse(nil, h))
	}
	f.Add([]byte{})
	f.Add([]byte{byte(statusCount)})
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := decodeResponse(data)
		if err != nil {
			if !errors.Is(err, ErrProtocol) {
				t.Fatal(err)
			}
			return
		}
		if len(h.Claims) > MaxClaims || h.Size < 0 || h.Length < 0 || h.Length > h.Size {
			t.Fatalf("impossible header %+v", h)
		}
		if again := appendResponse(nil, h); !bytes.Equal(again, data) {
			t.Fatalf("%x encodes to %x", data, again)
		}
		if (h.err() == nil) != (h.Status == statusOK) || len(h.Peers) > MaxAlternatives || len(h.Peers) > 0 && h.Status != statusBusy {
			t.Fatalf("impossible header %+v", h)
		}
		self, from := chunkindex.NodeID{1}, chunkindex.NodeID{2}
		h.answers(RangeRequest{digestOf("x"), 0, h.Length}, self, from)
		h.answers(RangeRequest{digestOf("x"), math.MaxInt64, -1}, self, from)
	})
}

func nodeIDs(n int) (ids []chunkindex.NodeID) {
	for i := range n {
		ids = append(ids, chunkindex.NodeID{byte(i + 1)})
	}
	return ids
}

func TestBusyAlternatives(t *testing.T) {
	self, asking := chunkindex.NodeID{100}, chunkindex.NodeID{101}
	nodes := nodeIDs(12)
	for name, tc := range map[string]struct {
		err  error
		want []chunkindex.NodeID
	}{
		"none":             {BusyError{}, nil},
		"plain":            {ErrBusy, nil},
		"wrapped":          {fmt.Errorf("full: %w", BusyError{Peers: nodes[:2]}), nodes[:2]},
		"as many as fit":   {BusyError{Peers: nodes[:8]}, nodes[:8]},
		"too many":         {BusyError{Peers: nodes}, nodes[:8]},
		"twice":            {BusyError{Peers: append(nodes[:3:3], nodes[:5]...)}, nodes[:5]},
		"own id and zero":  {BusyError{Peers: []chunkindex.NodeID{self, nodes[0], {}}}, nodes[:1]},
		"the asking node":  {BusyError{Peers: []chunkindex.NodeID{asking, nodes[0]}}, nodes[:1]},
		"only unfit nodes": {BusyError{Peers: []chunkindex.NodeID{asking, self}}, nil},
	} {
		if statusOf(tc.err) != statusBusy {
			t.Errorf("%s: status %v", name, statusOf(tc.err))
		}
		got := alternatives(tc.err, self, asking)
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
		head := responseHeader{Status: statusBusy, Peers: got}
		back, err := decodeResponse(appendResponse(nil, head))
		if err != nil || !reflect.DeepEqual(back, head) || back.answers(RangeRequest{}, asking, self) != nil {
			t.Errorf("%s: %+v becomes %+v, %v", name, head, back, err)
		}
	}
	if err := (responseHeader{Status: statusBusy}).err(); err != ErrBusy {
		t.Errorf("without alternatives: %v", err)
	}

	// What only an incorrect peer sends.
	busy := func(peers ...chunkindex.NodeID) []byte {
		return appendResponse(nil, responseHeader{Status: statusBusy, Peers: peers})
	}
	for name, data := range map[string][]byte{
		"too many":        busy(nodes[:9]...),
		"twice":           busy(nodes[0], nodes[1], nodes[0]),
		"zero":            busy(chunkindex.NodeID{}),
		"count of none":   {byte(statusBusy), 0},
		"cut short":       busy(nodes[0], nodes[1])[:60],
		"trailing":        append(busy(nodes[0]), 0),
		"padded count":    append([]byte{byte(statusBusy), 0x81, 0x00}, nodes[0][:]...),
		"with not found":  append([]byte{byte(statusNotFound), 1}, nodes[0][:]...),
		"enormous number": binary.AppendUvarint([]byte{byte(statusBusy)}, math.MaxUint64),
	} {
		if h, err := decodeResponse(data); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %+v, %v", name, h, err)
		}
	}
	for _, n := range []chunkindex.NodeID{self, asking} {
		head := responseHeader{Status: statusBusy, Peers: []chunkindex.NodeID{n}}
		if err := head.answers(RangeRequest{}, asking, self); !errors.Is(err, ErrProtocol) {
			t.Errorf("a busy peer that names one of the two: %v", err)
		}
	}
}

func FuzzReadFrames(f *testing.F) {
	f.Add([]byte{0, 0, 3, 'a', 'b', 'c'})
	f.Add([]byte{0x80, 0x80, 0x10})
	f.Add(binary.AppendUvarint(nil, MaxFrame+1))
	f.Add(binary.AppendUvarint(nil, math.MaxUint64))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReader(bytes.NewReader(data))
		var again []byte
		for {
			frame, err := readFrame(r)
			if err == io.EOF {
				if !bytes.Equal(again, data) {
					t.Fatalf("%x is read as %x", data, again)
				}
				return
			}
			if err != nil {
				if !errors.Is(err, ErrProtocol) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatal(err)
				}
				return
			}
			if len(frame) > MaxFrame || cap(frame) > 2*len(data)+growStep {
				t.Fatalf("frame of %d bytes, memory for %d, from %d", len(frame), cap(frame), len(data))
			}
			again = binary.AppendUvarint(again, uint64(len(frame)))
			again = append(again, frame...)
		}
	})
}

func FuzzParseBootstrap(f *testing.F) {
	for _, s := range []string{"dns:a", "dns:a:1", "dns:[::1]:5", "file:", "/ip4/1.2.3.4/tcp/5", "/dns4/x/tcp/1/p2p/12D3KooWGzh9MTGPsbZgHMXa1i7xdn2pCPJxFpgk2Fj8VNQ7m6hE", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 5 && s[:5] == "file:" {
			return // reads the file system
		}
		src, err := parseSource(s, DefaultPort, nil)
		if (err == nil) == (src == nil) {
			t.Fatalf("%v, %v", src, err)
		}
	})
}

// A peer's word alone allocates nothing.
func TestLargeAnnouncementAllocatesLittle(t *testing.T) {
	short := make([]byte, 100)
	allocated := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := readMessage(bytes.NewReader(short), MaxCall); !errors.Is(err, io.ErrUnexpectedEOF) {
				b.Fatal(err)
			}
		}
	}).AllocedBytesPerOp()
	if allocated > 2*growStep {
		t.Errorf("%d bytes allocated for a message of which 100 arrived", allocated)
	}
}

func TestReadMessageGrows(t *testing.T) {
	for _, n := range []int{0, 1, growStep - 1, growStep, growStep + 1, 5*growStep + 3} {
		want := randomBytes(n)
		r := bytes.NewReader(append(want[:n:n], 'x'))
		got, err := readMessage(r, n)
		if err != nil || !bytes.Equal(got, want) || r.Len() != 1 {
			t.Errorf("%d bytes: %d, %v, %d left", n, len(got), err, r.Len())
		}
	}
}

func TestSendQueue(t *testing.T) {
	q := newSendQueue()
	for i := range maxQueuedFrames {
		if err := q.push([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	got := q.take(nil)
	if len(got) != maxQueuedFrames || got[5][0] != 5 {
		t.Fatalf("%d frames", len(got))
	}
	if got := q.take(got[:0]); len(got) != 0 {
		t.Fatalf("%d frames twice", len(got))
	}
	for range maxQueuedBytes / MaxFrame {
		if err := q.push(make([]byte, MaxFrame)); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.push([]byte{1}); !errors.Is(err, ErrQueueFull) {
		t.Errorf("too many bytes: %v", err)
	}
	if err := q.push([]byte{1}); !errors.Is(err, ErrPeerDown) {
		t.Errorf("after an overflow: %v", err)
	}
	if got := q.take(nil); len(got) != 0 {
		t.Errorf("%d frames after an overflow: a gap", len(got))
	}
}

func TestStatusesRoundTrip(t *testing.T) {
	for s := range statusCount {
		if got := statusOf(s.err()); got != s {
			t.Errorf("%v becomes %v", s, got)
		}
	}
	if s := statusCount.String(); s != "invalid" {
		t.Error(s)
	}
	var zero responseHeader
	if h, err := decodeResponse(appendResponse(nil, zero)); err != nil || !reflect.DeepEqual(h, zero) {
		t.Errorf("%+v, %v", h, err)
	}
}
