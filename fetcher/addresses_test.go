package fetcher

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

func TestAddressesCodec(t *testing.T) {
	entries := []addressesOf{
		{newKeyring(1).Self(), []string{"/ip4/10.0.0.1/tcp/5001", "/ip6/::1/udp/5001/quic-v1"}},
		{newKeyring(2).Self(), nil},
	}
	frame := appendAddresses(nil, entries)
	if got, err := decodeAddresses(frame); err != nil || !reflect.DeepEqual(got, entries) {
		t.Errorf("%v, %v", got, err)
	}
	// Whoever does not know the frame may ignore it.
	if _, err := policy.DecodeMessage(frame); !errors.Is(err, policy.ErrOptional) {
		t.Errorf("%v", err)
	}
	one := func(addresses ...string) []byte {
		return appendAddresses(nil, []addressesOf{{newKeyring(1).Self(), addresses}})
	}
	many := make([]addressesOf, maxAddressNodes+1)
	for name, bad := range map[string][]byte{
		"empty":              {},
		"another kind":       {127, 0},
		"cut short":          frame[:len(frame)-1],
		"more behind":        append(bytes.Clone(frame), 0),
		"too many nodes":     appendAddresses(nil, many),
		"a huge count":       binary.AppendUvarint([]byte{frameAddresses}, 1<<60),
		"too many addresses": one(strings.Split(strings.Repeat("/a ", maxAddresses)+"/a", " ")...),
		"too long":           one("/" + strings.Repeat("a", maxAddress)),
		"no multiaddr":       one("10.0.0.1"),
		"a line break":       one("/ip4/10.0.0.1\n"),
		"an empty one":       one(""),
	} {
		if got, err := decodeAddresses(bad); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
	if _, err := decodeAddresses(appendAddresses(nil, many[:maxAddressNodes])); err != nil {
		t.Errorf("as many as may be: %v", err)
	}
}

func FuzzAddresses(f *testing.F) {
	f.Add(appendAddresses(nil, []addressesOf{{newKeyring(1).Self(), []string{"/ip4/10.0.0.1/tcp/5001"}}, {}}))
	f.Add([]byte{frameAddresses, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := decodeAddresses(data)
		if err != nil {
			return
		}
		if again := appendAddresses(nil, entries); !bytes.Equal(again, data) {
			t.Errorf("%x is read as %x", data, again)
		}
		for _, e := range entries {
			if len(e.addresses) > maxAddresses {
				t.Errorf("%d addresses", len(e.addresses))
			}
		}
	})
}

// wire is a Peers that keeps what is sent.
type wire struct {
	*fakeNode
	frames chan []byte
	fails  bool
}

func (w *wire) Send(_ chunkindex.NodeID, frame []byte) error {
	if w.fails {
		return errors.New("queue full")
	}
	w.frames <- frame
	return nil
}

// Nodes that a message names are introduced before it, and not again soon.
func TestIntroductions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, nil)
		w := &wire{fakeNode: s.fakeNode, frames: make(chan []byte, 100)}
		s.f.peers = w
		to, other := newKeyring(9).Self(), newKeyring(8).Self()
		var ids []chunkindex.NodeID
		for i := range byte(3) {
			id := newKeyring(20 + i).Self()
			ids = append(ids, id)
			s.net.mu.Lock()
			s.net.nodes[id] = &fakeNode{net: s.net, id: id}
			s.net.mu.Unlock()
		}
		unknown := newKeyring(40).Self()
		d := s.o.add([]byte("x"))
		// said returns who was introduced, and fails unless a message follows.
		said := func(e policy.Effect) (named []chunkindex.NodeID) {
			t.Helper()
			e.Kind, e.Msg.Blob, e.Msg.Size = policy.EfSend, d, -1
			s.do(e)
			synctest.Wait()
			for len(w.frames) > 1 {
				entries, err := decodeAddresses(<-w.frames)
				if err != nil {
					t.Error(err)
				}
				for _, e := range entries {
					named = append(named, e.node)
					if len(e.addresses) != 1 || !strings.HasPrefix(e.addresses[0], "/memory/") {
						t.Errorf("%v", e)
					}
				}
			}
			if m, err := policy.DecodeMessage(<-w.frames); err != nil || m.Kind != e.Msg.Kind {
				t.Errorf("%+v, %v", m, err)
			}
			return named
		}
		peers := func(to chunkindex.NodeID, ids ...chunkindex.NodeID) policy.Effect {
			return policy.Effect{Peer: to, Msg: policy.Message{Kind: policy.MsgPeers, Peers: ids}}
		}
		redirect := policy.Effect{Peer: to, Msg: policy.Message{Kind: policy.MsgRedirect, Peer: ids[2]}}
		for i, c := range []struct {
			after time.Duration
			e     policy.Effect
			want  []chunkindex.NodeID
		}{
			{0, peers(to, ids[0], unknown, to, s.id, ids[1]), ids[:2]},
			{0, peers(to, ids[0], ids[1]), nil},
			{0, redirect, ids[2:]},
			{0, redirect, nil},
			{0, peers(other, ids[1]), ids[1:2]},
			{introduced - time.Second, peers(to, ids...), nil},
			{2 * time.Second, peers(to, ids...), ids},
			{0, policy.Effect{Peer: to, Msg: policy.Message{Kind: policy.MsgPing}}, nil},
		} {
			time.Sleep(c.after)
			if got := said(c.e); !reflect.DeepEqual(got, c.want) {
				t.Errorf("%d: introduced %v, want %v", i, got, c.want)
			}
		}
		// A peer that went away may come back knowing nobody; what was not sent
		// was not told.
		s.f.PeerDown(to)
		w.fails = true
		s.f.introduce(to, ids)
		w.fails = false
		if got := said(peers(to, ids...)); !reflect.DeepEqual(got, ids) {
			t.Errorf("introduced %v", got)
		}
		if n := s.f.count.messages[sent][frameAddresses].Load(); n != 5 {
			t.Errorf("%d frames are counted", n)
		}
		// Memory is bounded whatever the number of peers.
		for i := range 3 * maxIntroduced {
			var to chunkindex.NodeID
			binary.BigEndian.PutUint64(to[:], uint64(i))
			s.f.introductions.note(to, []addressesOf{{node: ids[0]}}, time.Now())
			if s.f.introductions.n > maxIntroduced || len(s.f.introductions.told) > maxIntroduced {
				t.Fatal("unbounded")
			}
		}
		s.f.peers = s.fakeNode
		clear(s.net.nodes)
		s.stop(t)
	})
}

func TestLearning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, nil)
		from, a, b := newKeyring(9).Self(), newKeyring(3).Self(), newKeyring(4).Self()
		if err := s.f.Frame(from, appendAddresses(nil, []addressesOf{{a, []string{"/x/1", "/x/2"}}, {s.id, []string{"/x/3"}}, {b, nil}})); err != nil {
			t.Error(err)
		}
		if err := s.f.Frame(from, []byte{frameAddresses, 200}); err == nil {
			t.Error("malformed addresses are taken")
		}
		if want := (map[chunkindex.NodeID][]string{a: {"/x/1", "/x/2"}}); !reflect.DeepEqual(s.learnt, want) {
			t.Errorf("%v", s.learnt)
		}
		s.do(policy.Effect{Kind: policy.EfBan, Peer: from, At: s.f.now().Add(time.Minute)})
		synctest.Wait()
		if err := s.f.Frame(from, appendAddresses(nil, []addressesOf{{b, []string{"/x/4"}}})); err != nil {
			t.Error(err)
		}
		if len(s.learnt) != 1 {
			t.Errorf("%v", s.learnt)
		}
		s.stop(t)
	})
}
