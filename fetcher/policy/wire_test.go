package policy

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

func wireSamples() []Message {
	d := digest.FromString("blob")
	some := chunkindex.NewBitfield(70)
	some.Set(0)
	some.Set(69)
	return []Message{
		{Kind: MsgState, Blob: d, Size: -1, Want: true, Reply: true, Bits: chunkindex.NewBitfield(0), InFlight: chunkindex.NewBitfield(0)},
		{Kind: MsgState, Blob: d, Size: 70 << 20, Epoch: 3, Label: Label{1, 2}, Bits: some, InFlight: chunkindex.FullBitfield(70)},
		{Kind: MsgState, Blob: digest.SHA512.FromString("blob"), Size: 10, Small: true, Bits: chunkindex.FullBitfield(1), InFlight: chunkindex.NewBitfield(1)},
		{Kind: MsgState, Blob: d, Size: chunkindex.MaxBlobSize, Bits: chunkindex.FullBitfield(chunkindex.MaxChunks), InFlight: chunkindex.NewBitfield(chunkindex.MaxChunks)},
		{Kind: MsgHave, Blob: d, Size: 70 << 20, Chunk: 3, N: 300},
		{Kind: MsgHave, Blob: d, Size: 70 << 20, Chunk: 3, N: 2, Rest: [restWords]uint64{1<<63 | 1<<5}},
		{Kind: MsgHave, Blob: d, Size: 70 << 20, Chunk: 3, N: 2, Rest: [restWords]uint64{1, 0, 0, 1 << 63}},
		{Kind: MsgLeave, Blob: d, Size: -1},
		{Kind: MsgAsk, Blob: d, Size: 70 << 20, Epoch: 2, Bits: some, Peers: []chunkindex.NodeID{{1}, {2}}},
		{Kind: MsgGrant, Blob: d, Size: 70 << 20, Chunk: 16, N: 16, Epoch: 1},
		{Kind: MsgGiveBack, Blob: d, Size: 70 << 20, Chunk: 16, N: 16, Status: 429, Wait: 1500 * time.Millisecond, Origin: 7},
		{Kind: MsgRedirect, Blob: d, Size: -1, Peer: chunkindex.NodeID{9}},
		{Kind: MsgPeers, Blob: d, Size: -1, N: 500, Peers: []chunkindex.NodeID{{1}, {2}}, Labels: []Label{{}, {7, math.MaxUint32}}},
		{Kind: MsgJoin, Blob: d, Size: -1, Label: Label{7, 9}},
		{Kind: MsgCooldown, Blob: d, Size: -1, Status: 429, Wait: 90 * time.Second, Origin: math.MaxInt64},
		{Kind: MsgFree, Blob: d, Size: -1},
		{Kind: MsgPing, Blob: d, Size: -1},
		{Kind: MsgPong, Blob: d, Size: -1},
		{Kind: MsgAskSums, Blob: d, Size: 70 << 20, Chunk: 0, N: 256},
		{Kind: MsgSums, Blob: d, Size: 70 << 20, Chunk: 0, N: 2, Sums: []chunkindex.Sum{{1}, {2}}},
	}
}

func TestWireRoundTrip(t *testing.T) {
	kinds := map[MessageKind]bool{}
	for _, m := range wireSamples() {
		kinds[m.Kind] = true
		data := AppendMessage(nil, &m)
		got, err := DecodeMessage(data)
		if err != nil {
			t.Fatalf("kind %d: %v", m.Kind, err)
		}
		if !reflect.DeepEqual(got, m) {
			t.Errorf("kind %d: got %+v, want %+v", m.Kind, got, m)
		}
		for n := range data {
			if _, err := DecodeMessage(data[:n]); !errors.Is(err, ErrMessage) {
				t.Errorf("kind %d cut to %d of %d bytes: %v", m.Kind, n, len(data), err)
			}
		}
		if _, err := DecodeMessage(append(data, 0)); !errors.Is(err, ErrMessage) {
			t.Errorf("kind %d with a byte too many: %v", m.Kind, err)
		}
	}
	if len(kinds) != len(messageFields) {
		t.Errorf("samples cover %d kinds of %d", len(kinds), len(messageFields))
	}
}

// What a have-message speaks of beyond its run has one encoding, and one that is no longer
// than what a node keeps for it.
func TestWireRestIsBounded(t *testing.T) {
	m := Message{Kind: MsgHave, Blob: digest.FromString("blob"), Size: 70 << 20, Chunk: 3, N: 2}
	data := AppendMessage(nil, &m) // the last byte says how many follow
	for name, rest := range map[string][]byte{
		"a zero at the end": {2, 1, 0},
		"too many":          append([]byte{8*restWords + 1}, bytes.Repeat([]byte{1}, 8*restWords+1)...),
		"fewer than said":   {3, 1, 1},
	} {
		if _, err := DecodeMessage(append(data[:len(data)-1:len(data)-1], rest...)); !errors.Is(err, ErrMessage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWireUnknownKinds(t *testing.T) {
	if _, err := DecodeMessage([]byte{200, 0, 1, 2, 3}); !errors.Is(err, ErrOptional) {
		t.Errorf("optional: %v", err)
	}
	if _, err := DecodeMessage([]byte{100, 0, 1, 2, 3}); !errors.Is(err, ErrMessage) {
		t.Errorf("mandatory: %v", err)
	}
}

// A frame from outside either is refused or is exactly what its sender would
// have encoded: two encodings of one message would let a relay change bytes
// that somebody compares.
func FuzzDecodeMessage(f *testing.F) {
	for _, m := range wireSamples() {
		f.Add(AppendMessage(nil, &m))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := DecodeMessage(data)
		if err != nil {
			return
		}
		if again := AppendMessage(nil, &m); !bytes.Equal(again, data) {
			t.Errorf("decoded %x, encoded %x", data, again)
		}
	})
}
