package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/http"
	"net/url"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher"
	"github.com/peercache/peercache/p2p"
	"github.com/peercache/peercache/registryproxy"
	"github.com/peercache/peercache/registryproxy/origin"
	"github.com/peercache/peercache/store"
)

// Each package names what it needs in its own words, and imports none of its
// neighbours. The types here translate, and do nothing else.

var (
	_ fetcher.Store         = storePort{}
	_ fetcher.StoredBlob    = (*store.Blob)(nil)
	_ fetcher.Partial       = partialPort{}
	_ fetcher.Peers         = peersPort{}
	_ fetcher.Origin        = originPort{}
	_ fetcher.Keyring       = keyring{}
	_ p2p.Handler           = peerHandler{}
	_ registryproxy.Backend = backend{}
)

// storePort is the store as the fetcher wants it.
type storePort struct{ *store.Store }

func (s storePort) Stat(d digest.Digest) (fetcher.StoreInfo, error) {
	info, err := s.Store.Stat(d)
	return storeInfo(info), err
}

func storeInfo(i store.Info) fetcher.StoreInfo {
	return fetcher.StoreInfo{Size: i.Size, Kind: fetcher.Kind(i.Kind), Complete: i.Complete}
}

func (s storePort) List(f func(digest.Digest, fetcher.StoreInfo) bool) error {
	return s.Store.List(func(i store.Info) bool { return f(i.Digest, storeInfo(i)) })
}

func (s storePort) Open(d digest.Digest) (fetcher.StoredBlob, error) {
	b, err := s.Store.Open(d)
	if err != nil {
		return nil, err // not b: a nil *store.Blob is no nil interface
	}
	return b, nil
}

func (s storePort) Put(ctx context.Context, d digest.Digest, kind fetcher.Kind, data []byte) error {
	return s.Store.Put(ctx, d, store.Kind(kind), data)
}

func (s storePort) Partial(d digest.Digest, l chunkindex.Layout, kind fetcher.Kind) (fetcher.Partial, error) {
	p, err := s.Store.Partial(d, l, store.Kind(kind))
	if err != nil {
		return nil, err
	}
	return partialPort{p}, nil
}

type partialPort struct{ *store.Partial }

func (p partialPort) Chunk(i int) fetcher.ChunkState { return fetcher.ChunkState(p.Partial.Chunk(i)) }

// peersPort is the p2p host as the fetcher wants it.
type peersPort struct{ *p2p.Host }

func (p peersPort) Read(ctx context.Context, to chunkindex.NodeID, d digest.Digest, off, n int64) (*fetcher.PeerBody, error) {
	r, err := p.Host.Read(ctx, to, p2p.RangeRequest{Digest: d, Offset: off, Length: n})
	if err != nil {
		return nil, peerError(err)
	}
	return &fetcher.PeerBody{ReadCloser: r.Body, Size: r.Size, Length: r.Length, Claims: r.Claims}, nil
}

func (p peersPort) Call(ctx context.Context, to chunkindex.NodeID, request []byte) ([]byte, error) {
	response, err := p.Host.Call(ctx, to, request)
	return response, peerError(err)
}

// peerError gives a peer's refusal the form in which the fetcher knows it. The
// nodes that a busy peer named are p2p.BusyError's Alternatives, further in.
func peerError(err error) error {
	switch {
	case errors.Is(err, p2p.ErrBusy):
		return busyError{err}
	case errors.Is(err, p2p.ErrNotFound):
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return err
}

type busyError struct{ error }

func (busyError) Busy() bool      { return true }
func (e busyError) Unwrap() error { return e.error }

// peerHandler is the fetcher as the p2p host wants it.
type peerHandler struct{ *fetcher.Fetcher }

func (h peerHandler) OpenRange(ctx context.Context, from chunkindex.NodeID, r p2p.RangeRequest) (*p2p.RangeSource, error) {
	s, err := h.Fetcher.OpenRange(ctx, from, fetcher.RangeRequest(r))
	if err != nil {
		return nil, refusal(err)
	}
	return &p2p.RangeSource{Size: s.Size, Length: s.Length, Claims: s.Claims, Body: s.Body}, nil
}

func (h peerHandler) Call(ctx context.Context, from chunkindex.NodeID, request []byte) ([]byte, error) {
	response, err := h.Fetcher.Call(ctx, from, request)
	return response, refusal(err)
}

// refusal gives the fetcher's error the form in which it travels to a peer.
func refusal(err error) error {
	var busy interface{ Busy() bool }
	switch {
	case errors.As(err, &busy) && busy.Busy():
		var others interface{ Alternatives() []chunkindex.NodeID }
		var answer p2p.BusyError
		if errors.As(err, &others) {
			answer.Peers = others.Alternatives()
		}
		return fmt.Errorf("%w: %w", answer, err)
	case errors.Is(err, fetcher.ErrRange):
		return fmt.Errorf("%w: %w", p2p.ErrBadRange, err)
	}
	return err
}

// originPort is the origin client as the fetcher wants it.
type originPort struct{ *origin.Client }

func (o originPort) Blob(ctx context.Context, src fetcher.Source, d digest.Digest, off, n int64) (*fetcher.OriginBody, error) {
	b, err := o.Client.Blob(ctx, origin.Source(src), d, off, n)
	if err != nil {
		return nil, err
	}
	return &fetcher.OriginBody{ReadCloser: b, Size: b.Size, Offset: b.Offset, Ranged: b.Ranged}, nil
}

func (o originPort) Size(ctx context.Context, src fetcher.Source, d digest.Digest) (int64, error) {
	return o.Client.Size(ctx, origin.Source(src), d)
}

func (o originPort) Manifest(ctx context.Context, src fetcher.Source, reference string, accept []string) (*fetcher.Manifest, error) {
	m, err := o.Client.Manifest(ctx, origin.Source(src), reference, accept)
	if err != nil {
		return nil, err
	}
	return &fetcher.Manifest{Body: m.Body, MediaType: m.MediaType, Digest: m.Digest}, nil
}

func (o originPort) Resolve(ctx context.Context, src fetcher.Source, tag string, accept []string) (fetcher.Descriptor, error) {
	d, err := o.Client.Resolve(ctx, origin.Source(src), tag, accept)
	return fetcher.Descriptor{Digest: d.Digest, Size: d.Size, MediaType: d.MediaType, Date: d.Date}, err
}

func (o originPort) List(ctx context.Context, src fetcher.Source, kind fetcher.QueryKind, reference string, params url.Values) (*fetcher.List, error) {
	which := origin.Tags
	if kind == fetcher.QueryReferrers {
		which = origin.Referrers
	}
	l, err := o.Client.List(ctx, origin.Source(src), which, reference, params)
	if err != nil {
		return nil, err
	}
	return &fetcher.List{Body: l.Body, MediaType: l.MediaType, Link: l.Link, FiltersApplied: l.FiltersApplied}, nil
}

func (o originPort) Public(src fetcher.Source) (public, known bool) {
	return o.Client.Public(origin.Source(src))
}

func (o originPort) Anybody(ctx context.Context, src fetcher.Source, reference string, blob bool) bool {
	return o.Client.Anybody(ctx, origin.Source(src), reference, blob)
}

// keyring signs with the node's identity.
type keyring struct {
	self chunkindex.NodeID
	key  ed25519.PrivateKey
}

func (k keyring) Self() chunkindex.NodeID { return k.self }

func (k keyring) Sign(d digest.Digest, l chunkindex.Layout, chunk int, sum chunkindex.Sum) chunkindex.Claim {
	return chunkindex.Sign(k.key, d, l, chunk, sum)
}

func (k keyring) SignRecord(context string, msg []byte) []byte {
	signed := append([]byte(context), 0)
	return ed25519.Sign(k.key, append(signed, msg...))
}

// backend is the fetcher as the registry proxy wants it.
type backend struct{ fetcher *fetcher.Fetcher }

func (b backend) Resolve(ctx context.Context, q registryproxy.Query) (registryproxy.Answer, error) {
	kind := fetcher.QueryTag
	switch q.Kind {
	case registryproxy.KindTags:
		kind = fetcher.QueryTags
	case registryproxy.KindReferrers:
		kind = fetcher.QueryReferrers
	}
	a, err := b.fetcher.Resolve(ctx, fetcher.Query{
		Source: fetcher.Source{Origin: q.Origin, Repository: q.Repository},
		Kind:   kind, Reference: q.Reference, Params: q.Params, Accept: q.Accept,
	})
	if err != nil {
		return registryproxy.Answer{}, err
	}
	answer := registryproxy.Answer{
		Digest: a.Digest, Size: max(0, a.Size), MediaType: a.Descriptor.MediaType,
		Body: a.Body, Link: a.Link, FiltersApplied: a.FiltersApplied, Stale: a.Stale, Age: a.Age,
	}
	if kind != fetcher.QueryTag {
		answer.MediaType = a.List.MediaType
	}
	return answer, nil
}

func (b backend) ref(r registryproxy.Ref) fetcher.Ref {
	return fetcher.Ref{
		Source: fetcher.Source{Origin: r.Origin, Repository: r.Repository},
		Digest: r.Digest, Manifest: r.Manifest,
	}
}

func (b backend) Stat(ctx context.Context, r registryproxy.Ref) (registryproxy.Info, error) {
	info, err := b.fetcher.Stat(ctx, b.ref(r))
	return registryproxy.Info(info), err
}

func (b backend) Open(ctx context.Context, r registryproxy.Ref, br *registryproxy.ByteRange) (registryproxy.Content, error) {
	want, ok := fetchRange(br)
	if !ok {
		return nil, b.unsatisfiable(ctx, r, &registryproxy.Error{Status: http.StatusRequestedRangeNotSatisfiable})
	}
	c, err := b.fetcher.Open(ctx, b.ref(r), want)
	if err != nil {
		var status interface{ HTTPStatus() int }
		if errors.As(err, &status) && status.HTTPStatus() == http.StatusRequestedRangeNotSatisfiable {
			err = b.unsatisfiable(ctx, r, err)
		}
		return nil, err
	}
	return c, nil
}

// unsatisfiable adds the content's size to the answer that a range is not in it
// (RFC 9110, section 15.5.17), if it can be had.
func (b backend) unsatisfiable(ctx context.Context, r registryproxy.Ref, err error) error {
	info, statErr := b.fetcher.Stat(ctx, b.ref(r))
	if statErr != nil {
		return err
	}
	return &registryproxy.RangeError{Size: info.Size}
}

// fetchRange translates an inclusive range into a half-open one; false for the
// suffix of no bytes, which the fetcher's form cannot say.
func fetchRange(r *registryproxy.ByteRange) (*fetcher.Range, bool) {
	switch {
	case r == nil:
		return nil, true
	case r.Start < 0:
		return &fetcher.Range{Suffix: r.End}, r.End > 0
	case r.End < 0 || r.End == math.MaxInt64:
		return &fetcher.Range{Start: r.Start, End: -1}, true
	default:
		return &fetcher.Range{Start: r.Start, End: r.End + 1}, true
	}
}
