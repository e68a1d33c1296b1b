package fetcher

import (
	"context"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
)

// Stat describes content and downloads nothing: from the store, from what
// manifests said, from the origin (for manifests one request does for the cluster,
// as for tags), or, where that does not answer, from peers, whose word for it is
// a claim. Nothing is told that the origin does not let this node read. Errors
// have an HTTPStatus method.
func (f *Fetcher) Stat(ctx context.Context, ref Ref) (Info, error) {
	if err := checkRef(ref); err != nil {
		return Info{}, err
	}
	if isEmpty(ref.Digest) && !ref.Manifest {
		return Info{}, nil
	}
	if err := f.allow(ctx, ref); err != nil {
		return Info{}, clientError(err)
	}
	if info, ok := f.knownInfo(ref.Digest); ok && (!ref.Manifest || info.MediaType != "") {
		return info, nil
	}
	type result struct {
		info Info
		err  error
	}
	asked := make(chan result, 1)
	started := f.spawn(func() {
		ctx, cancel := context.WithTimeout(f.ctx, f.opts.OriginTimeout)
		defer cancel()
		var r result
		r.info, r.err = f.statShared(ctx, ref)
		if r.err == nil || definite(r.err) {
			f.tags.setSuspect(ref.Origin, false)
		}
		asked <- r
	})
	if !started {
		return Info{}, errClosed
	}
	timer := time.NewTimer(f.patience(ref.Origin))
	defer timer.Stop()
	var failed error
	select {
	case r := <-asked:
		if r.err == nil {
			return r.info, nil
		}
		if definite(r.err) {
			return Info{}, r.err
		}
		failed = r.err
	case <-timer.C:
		f.tags.setSuspect(ref.Origin, true)
	case <-ctx.Done():
		return Info{}, ctx.Err()
	}
	wait, cancel := context.WithTimeout(ctx, f.opts.PeerPatience)
	defer cancel()
	if info, ok := f.askInfo(wait, ref.Digest); ok {
		return info, nil
	}
	if failed != nil {
		return Info{}, clientError(failed)
	}
	select {
	case r := <-asked:
		if r.err != nil {
			return Info{}, clientError(r.err)
		}
		return r.info, nil
	case <-ctx.Done():
		return Info{}, ctx.Err()
	}
}

// knownInfo is what this node knows of a digest without asking anybody.
func (f *Fetcher) knownInfo(d digest.Digest) (Info, bool) {
	h, _ := f.hints.get(d)
	info := Info{Size: h.size, MediaType: h.mediaType}
	st, err := f.store.Stat(d)
	if err != nil {
		return info, info.Size >= 0
	}
	info.Size = st.Size
	if st.Complete && st.Kind == KindManifest {
		if sb, err := f.store.Open(d); err == nil {
			info.MediaType = f.manifestType(d, sb)
			closeQuietly(sb)
		}
	}
	return info, info.Size >= 0
}

// statShared describes content by the origin's word: for a manifest by the answer
// to a question that other nodes may have asked already.
func (f *Fetcher) statShared(ctx context.Context, ref Ref) (Info, error) {
	if !ref.Manifest {
		return f.statOrigin(ctx, ref)
	}
	query := Query{Source: ref.Source, Kind: QueryTag, Reference: ref.Digest.String()}
	q := canonical(query)
	fl := f.ask(q, Ref{}, func(ctx context.Context) (record, error) { return f.askOrigin(ctx, q, query) })
	select {
	case <-fl.over.Done():
	case <-ctx.Done():
		return Info{}, ctx.Err()
	}
	if fl.err != nil {
		return Info{}, fl.err
	}
	r := &fl.record
	if r.digest != ref.Digest {
		return Info{}, &Error{Status: http.StatusBadGateway, Message: "the origin names another manifest than the one asked for"}
	}
	f.hints.put(ref.Digest, hint{size: r.size, kind: KindManifest, mediaType: r.mediaType})
	return Info{Size: r.size, MediaType: r.mediaType}, nil
}

func (f *Fetcher) statOrigin(ctx context.Context, ref Ref) (Info, error) {
	if !ref.Manifest {
		size, err := f.origin.Size(ctx, ref.Source, ref.Digest)
		if err != nil {
			return Info{}, err
		}
		f.hints.put(ref.Digest, hint{size: size})
		return Info{Size: size}, nil
	}
	d, err := f.origin.Resolve(ctx, ref.Source, ref.Digest.String(), nil)
	if err != nil {
		return Info{}, err
	}
	f.hints.put(ref.Digest, hint{size: d.Size, kind: KindManifest, mediaType: d.MediaType})
	return Info{Size: d.Size, MediaType: d.MediaType}, nil
}
