package policy

import (
	"encoding/binary"
	"math/bits"

	"github.com/peercache/peercache/chunkindex"
)

// peerTable finds peers by ID: a hash table with open addressing and linear probing. Each
// event is about a peer, mostly another one than the event before, so that what a look-up
// costs is how many places in memory it goes to: here two, the slot and the peer, where a
// map of Go goes to four.
//
// Its zero value is an empty table whose hash anybody can foresee: see hashPeers.
type peerTable struct {
	slots []peerSlot // as many as a power of 2, some of them empty
	n     int
	odd   uint64
	shift int // of a hash, for a slot's number
}

// peerSlot holds a peer, if any, and the beginning of its ID.
type peerSlot struct {
	key uint64
	p   *peer
}

func keyOf(id *chunkindex.NodeID) uint64 { return binary.LittleEndian.Uint64(id[:]) }

// hashPeers returns an empty table. Nobody who does not know the seed can make IDs that
// all have one place in it: multiply-shift hashing by a random odd number is universal
// (Dietzfelbinger, Hagerup, Katajainen and Penttonen, "A reliable randomized algorithm for
// the closest-pair problem", 1997).
func hashPeers(seed uint64) peerTable { return peerTable{odd: seed | 1} }

// get returns the peer with an ID, nil if there is none.
func (t *peerTable) get(id chunkindex.NodeID) *peer {
	if t.n == 0 {
		return nil
	}
	key := keyOf(&id)
	for i := t.home(key); t.slots[i].p != nil; i = t.after(i) {
		if t.slots[i].key == key && t.slots[i].p.id == id {
			return t.slots[i].p
		}
	}
	return nil
}

// home is where a key is looked for first, after where it is looked for next.
func (t *peerTable) home(key uint64) int { return int(key * t.odd >> t.shift) }

func (t *peerTable) after(i int) int { return (i + 1) & (len(t.slots) - 1) }

// add adds a peer that is not in the table.
func (t *peerTable) add(p *peer) {
	if t.n++; 4*t.n > 3*len(t.slots) {
		old := t.slots
		t.slots = make([]peerSlot, max(2*len(old), 8))
		t.shift = 64 - bits.TrailingZeros(uint(len(t.slots)))
		for _, s := range old {
			if s.p != nil {
				t.put(s)
			}
		}
	}
	t.put(peerSlot{keyOf(&p.id), p})
}

func (t *peerTable) put(s peerSlot) {
	i := t.home(s.key)
	for t.slots[i].p != nil {
		i = t.after(i)
	}
	t.slots[i] = s
}

// remove takes a peer out of the table, in which it is. Those that would not be found
// past the gap move into it.
func (t *peerTable) remove(p *peer) {
	gap := t.home(keyOf(&p.id))
	for t.slots[gap].p != p {
		gap = t.after(gap)
	}
	t.n--
	for i := t.after(gap); t.slots[i].p != nil; i = t.after(i) {
		if home := t.home(t.slots[i].key); (i-home)&(len(t.slots)-1) >= (i-gap)&(len(t.slots)-1) {
			t.slots[gap] = t.slots[i]
			gap = i
		}
	}
	t.slots[gap] = peerSlot{}
}
