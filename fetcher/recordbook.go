package fetcher

import (
	"encoding/binary"
	"time"
)

// spaceAnswers is where answers are kept in the store.
const spaceAnswers = "answers"

// recall returns the answers that this node has kept to questions of q's topic,
// with their ages as of now. They are kept with this node's wall clock, which is
// compared with nothing but itself: see [stamp] for a clock that was set back.
func (f *Fetcher) recall(q question) []aged {
	value, err := f.store.Record(spaceAnswers, q.topic())
	if err != nil {
		if !absent(err) {
			f.log.Error("reading an answer", "err", err)
		}
		return nil
	}
	if len(value) < 8 {
		return nil
	}
	rs, err := decodeAged(value[8:])
	if err != nil {
		// Another version wrote it, or worse: it is asked for anew.
		f.log.Info("reading an answer", "err", err)
		return nil
	}
	passed := stamp(binary.BigEndian.Uint64(value)).age()
	for i := range rs {
		rs[i].age += passed
	}
	return rs
}

// keep adds an answer to what is kept, in place of an older one to the same
// question. What the origin said to this node itself replaces any that came before
// it, whatever their dates: the origin's clock may have been set back, and another
// node's record may have borne a date of its own making.
func (f *Fetcher) keep(r aged) {
	if len(r.body) > maxListBody || len(r.link) > maxField || !r.fits() {
		return
	}
	f.tags.keeping.Lock()
	defer f.tags.keeping.Unlock()
	kept := []aged{r}
	for _, o := range f.recall(r.question) {
		switch {
		case o.question == r.question && o.newer(&r) && (r.signer != f.keys.Self() || o.age < r.age):
			return
		case o.question != r.question && len(kept) < maxVariants:
			kept = append(kept, o)
		}
	}
	value := binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixMilli()))
	if err := f.store.PutRecord(spaceAnswers, r.topic(), appendAged(value, kept)); err != nil {
		f.log.Warn("keeping an answer", "err", err)
	}
}

// best picks the newest of the answers that a client who asked q can use, nil if
// there is none.
func best(q question, rs []aged) *aged {
	var found *aged
	for i := range rs {
		r := &rs[i]
		if r.topic() != q.topic() || r.accept != q.accept && !q.accepts(r.mediaType) {
			continue
		}
		if found == nil || r.newer(found) {
			found = r
		}
	}
	return found
}

// exact picks the answer to the very same question.
func exact(q question, rs []aged) *aged {
	for i := range rs {
		if rs[i].question == q {
			return &rs[i]
		}
	}
	return nil
}
