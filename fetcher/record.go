package fetcher

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// errRecord says that bytes are not what this package would have encoded.
var errRecord = errors.New("fetcher: malformed record")

// recordContext separates the signatures of records from all others.
const recordContext = "peercache-answer-record-v1"

const (
	recordVersion = 2
	maxField      = 4096
	// maxListBody bounds the lists that are kept and passed on.
	maxListBody = 3 << 20
	// maxVariants bounds the records of one topic.
	maxVariants = 4
)

// record is what an origin answered to a question, signed by the node that asked
// it. How old it is travels beside it, as the word of whoever passes it on.
type record struct {
	question
	digest         digest.Digest // of a tag
	size           int64         // of a tag; -1 unknown
	mediaType      string
	body           []byte // of a list
	link           string
	filtersApplied string
	date           int64 // by the origin's clock, in seconds since 1970; 0 unknown
	public         bool  // the signer had it without credentials
	signer         chunkindex.NodeID
	signature      [ed25519.SignatureSize]byte
}

// aged is a record and how long ago the origin gave it.
type aged struct {
	record
	age time.Duration
}

func (r *record) answer() Answer {
	a := Answer{
		Descriptor: Descriptor{Digest: r.digest, Size: r.size, MediaType: r.mediaType},
		List:       List{Body: r.body, MediaType: r.mediaType, Link: r.link, FiltersApplied: r.filtersApplied},
	}
	if r.kind != QueryTag {
		a.Descriptor = Descriptor{Size: -1}
	} else {
		a.List = List{}
	}
	if r.date != 0 {
		a.Date = time.Unix(r.date, 0)
	}
	return a
}

// newer reports whether r came from the origin after o. Dates compare only as
// they are both by the origin's clock; else the ages decide.
func (r *aged) newer(o *aged) bool {
	if r.date != 0 && o.date != 0 && r.date != o.date {
		return r.date > o.date
	}
	return r.age < o.age
}

// agrees reports whether r and o give the same answer, whoever signed it.
func (r *record) agrees(o *record) bool {
	return r.digest == o.digest && r.public == o.public && r.link == o.link && bytes.Equal(r.body, o.body)
}

func appendBytes[T string | []byte](dst []byte, s T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// signed appends what the signature covers.
func (r *record) signed(dst []byte) []byte {
	dst = append(dst, recordVersion)
	for _, s := range []string{string(r.kind), r.origin, r.repository, r.reference, r.params, r.accept,
		string(r.digest), r.mediaType, r.link, r.filtersApplied} {
		dst = appendBytes(dst, s)
	}
	dst = binary.AppendVarint(dst, r.size)
	dst = binary.AppendVarint(dst, r.date)
	if r.public {
		dst = append(dst, 1)
	} else {
		dst = append(dst, 0)
	}
	return appendBytes(dst, r.body)
}

func (r *record) append(dst []byte) []byte {
	dst = r.signed(dst)
	dst = append(dst, r.signer[:]...)
	return append(dst, r.signature[:]...)
}

func (r *record) sign(keys Keyring) {
	r.signer = keys.Self()
	copy(r.signature[:], keys.SignRecord(recordContext, r.signed(nil)))
}

// genuine reports whether the record's signer signed it.
func (r *record) genuine() bool {
	msg := append([]byte(recordContext), 0)
	return ed25519.Verify(r.signer[:], r.signed(msg), r.signature[:])
}

// scanner reads encoded fields; after the first error it reads nothing more.
type scanner struct {
	data []byte
	bad  bool
}

func (s *scanner) fail() { s.data, s.bad = nil, true }

func (s *scanner) take(n int) []byte {
	if s.bad || n < 0 || n > len(s.data) {
		s.fail()
		return nil
	}
	b := s.data[:n]
	s.data = s.data[n:]
	return b
}

func (s *scanner) byte() byte {
	if b := s.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (s *scanner) uvarint(most uint64) uint64 {
	v, n := binary.Uvarint(s.data)
	if n <= 0 || v > most || n > 1 && s.data[n-1] == 0 {
		s.fail()
		return 0
	}
	s.data = s.data[n:]
	return v
}

func (s *scanner) varint() int64 {
	v, n := binary.Varint(s.data)
	if n <= 0 || n > 1 && s.data[n-1] == 0 {
		s.fail()
		return 0
	}
	s.data = s.data[n:]
	return v
}

func (s *scanner) node() (id chunkindex.NodeID) {
	copy(id[:], s.take(len(id)))
	return id
}

func (s *scanner) bytes(most int) []byte { return s.take(int(s.uvarint(uint64(most)))) }

func (s *scanner) record() (r record) {
	if s.byte() != recordVersion {
		s.fail()
	}
	var kind, dig string
	for _, at := range []*string{&kind, &r.origin, &r.repository, &r.reference, &r.params, &r.accept,
		&dig, &r.mediaType, &r.link, &r.filtersApplied} {
		*at = string(s.bytes(maxField))
	}
	r.kind, r.digest = QueryKind(kind), digest.Digest(dig)
	r.size, r.date = s.varint(), s.varint()
	switch s.byte() {
	case 0:
	case 1:
		r.public = true
	default:
		s.fail()
	}
	if b := s.bytes(maxListBody); len(b) > 0 {
		r.body = append([]byte(nil), b...)
	}
	r.signer = s.node()
	copy(r.signature[:], s.take(len(r.signature)))
	switch r.kind {
	case QueryTag:
		if r.digest.Validate() != nil || r.size < -1 || r.size > chunkindex.MaxBlobSize || r.body != nil {
			s.fail()
		}
	case QueryTags, QueryReferrers:
		if r.digest != "" {
			s.fail()
		}
	case kindAccess:
		if r.digest != "" || r.body != nil {
			s.fail()
		}
	default:
		s.fail()
	}
	return r
}

// maxAge keeps ages far from overflow: a hundred years.
const maxAge = 100 * 365 * 24 * time.Hour

// appendAged appends records with their ages.
func appendAged(dst []byte, rs []aged) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(rs)))
	for i := range rs {
		dst = binary.AppendUvarint(dst, uint64(max(0, min(rs[i].age, maxAge)).Milliseconds()))
		dst = rs[i].append(dst)
	}
	return dst
}

func decodeAged(data []byte) ([]aged, error) {
	s := &scanner{data: data}
	rs := s.aged()
	if s.bad || len(s.data) != 0 {
		return nil, errRecord
	}
	return rs, nil
}

func (s *scanner) aged() []aged {
	var rs []aged
	for range s.uvarint(maxVariants) {
		age := time.Duration(s.uvarint(uint64(maxAge.Milliseconds()))) * time.Millisecond
		rs = append(rs, aged{s.record(), age})
		if s.bad {
			return nil
		}
	}
	return rs
}
