package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ipfs/go-datastore/query"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/peercache/peercache/bench/internal/rig"
	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/store"
)

const (
	// chunksPerBlob is how many chunks of a blob of 1 GiB are here: not all, so
	// that it stays partial, and each chunk keeps a record of its own.
	chunksPerBlob = 1023
	// manifests is how many small objects there are beside.
	manifests = 200
	// members is how many nodes the provider records name.
	members = 500
	// prefix is the datastore's that cmd/peercache gives to package p2p.
	prefix = "p2p"
)

// fill makes the store that a node then opens, through the store's and the DHT's
// own interfaces.
func fill(ctx context.Context, data string, chunks, providers int) (err error) {
	dir := rig.StoreDir(data)
	s, err := store.Open(dir, &store.Options{MaxBytes: 64 << 30, MinFreeFraction: -1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	for blob := 0; chunks > 0; blob++ {
		n := min(chunks, chunksPerBlob)
		if err := fillBlob(ctx, s, dir, blob, n); err != nil {
			return fmt.Errorf("writing chunk records: %w", err)
		}
		chunks -= n
	}
	for i := range manifests {
		body := fmt.Appendf(nil, "%4096d", i)
		if err := s.Put(ctx, digest.FromBytes(body), store.KindManifest, body); err != nil {
			return err
		}
	}
	if err := fillProviders(ctx, s, providers); err != nil {
		return err
	}
	found, err := s.Datastore(prefix).Query(ctx, query.Query{Prefix: records.ProvidersKeyPrefix, KeysOnly: true})
	if err != nil {
		return err
	}
	list, err := found.Rest()
	if err == nil && len(list) != providers {
		err = fmt.Errorf("%d provider records were written of %d", len(list), providers)
	}
	return err
}

// fillBlob writes n chunks of a blob, with claims. Their bytes are taken from the
// file again before they reach the disk: nobody reads them here, and 20 GB are
// not needed to know what their records cost.
func fillBlob(ctx context.Context, s *store.Store, dir string, number, n int) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	d := digest.FromString(fmt.Sprint("blob ", number))
	l, err := chunkindex.LayoutFor(1 << 30)
	if err != nil {
		return err
	}
	p, err := s.Partial(d, l, store.KindLayer)
	if err != nil {
		return err
	}
	defer p.Close()
	path := filepath.Join(dir, "partial", d.Algorithm().String(), d.Encoded())
	if _, err := os.Stat(path); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	var buf *chunkindex.Buffer
	for i := range n {
		off, length := l.Chunk(i)
		buf = chunkindex.NewBuffer(int(length), buf)
		if _, err := buf.ReadFrom(rig.Content{Number: uint64(number*chunksPerBlob + i), Size: length}.Reader()); err != nil {
			return err
		}
		claim := chunkindex.Sign(key, d, l, i, buf.Sum())
		if err := p.WriteChunk(i, buf, chunkindex.Fetched, &claim); err != nil {
			return err
		}
		if err := unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, length); err != nil {
			return fmt.Errorf("punching a hole: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// fillProviders writes provider records as the DHT does: two for each key.
func fillProviders(ctx context.Context, s *store.Store, n int) (err error) {
	addresses, err := pstoremem.NewPeerstore()
	if err != nil {
		return err
	}
	defer addresses.Close()
	var ids []peer.ID
	for range members {
		_, public, err := crypto.GenerateEd25519Key(rand.Reader)
		if err != nil {
			return err
		}
		id, err := peer.IDFromPublicKey(public)
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	m, err := records.NewProviderManager(ids[0], addresses, s.Datastore(prefix), records.ProvideValidity(2*time.Hour))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	for i := range n {
		c, err := chunkindex.CID(digest.FromString(fmt.Sprint("key ", i/2)))
		if err != nil {
			return err
		}
		// The second one is another node than the first.
		if err := m.AddProvider(ctx, c.Hash(), peer.AddrInfo{ID: ids[(i/2+i%2)%members]}); err != nil {
			return fmt.Errorf("writing provider records: %w", err)
		}
	}
	return nil
}
