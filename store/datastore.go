package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
)

// Datastore returns a go-datastore with keys of its own in the store's index: two
// with different prefixes share nothing. It is for provider records and the like:
// values are at most [MaxRecord] bytes and do not count towards the byte budget.
// Writes survive this process at once, and a power cut after Sync. Its Close does
// nothing; it ends with the store. A prefix holds no zero byte.
func (s *Store) Datastore(prefix string) datastore.Batching {
	if strings.IndexByte(prefix, 0) >= 0 {
		panic(fmt.Sprintf("store: datastore prefix %q holds a zero byte", prefix))
	}
	return &keySpace{index: s.index, prefix: append(append([]byte{spaceDatastore}, prefix...), 0)}
}

// keySpace implements datastore.Batching on a prefix of the index.
type keySpace struct {
	index  *index
	prefix []byte
}

func (k *keySpace) key(key datastore.Key) []byte {
	return append(bytes.Clone(k.prefix), key.String()...)
}

func (k *keySpace) Get(ctx context.Context, key datastore.Key) ([]byte, error) {
	v, err := k.index.get(k.key(key))
	if isAbsent(err) {
		return nil, datastore.ErrNotFound
	}
	return v, err
}

func (k *keySpace) Has(ctx context.Context, key datastore.Key) (bool, error) {
	_, err := k.GetSize(ctx, key)
	if errors.Is(err, datastore.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

func (k *keySpace) GetSize(ctx context.Context, key datastore.Key) (size int, err error) {
	err = k.index.view(func(txn *badger.Txn) error {
		item, err := txn.Get(k.key(key))
		if err == nil {
			size = int(item.ValueSize())
		}
		return err
	})
	if isAbsent(err) {
		return -1, datastore.ErrNotFound
	}
	return size, err
}

func (k *keySpace) Put(ctx context.Context, key datastore.Key, value []byte) error {
	if len(value) > MaxRecord {
		return fmt.Errorf("store: value of %d bytes: %w", len(value), ErrTooLarge)
	}
	return k.index.update(func(txn *badger.Txn) error { return txn.Set(k.key(key), bytes.Clone(value)) })
}

func (k *keySpace) Delete(ctx context.Context, key datastore.Key) error {
	return k.index.update(func(txn *badger.Txn) error { return txn.Delete(k.key(key)) })
}

func (k *keySpace) Sync(context.Context, datastore.Key) error { return k.index.sync() }
func (k *keySpace) Close() error                              { return nil }

// Query walks the keys under q.Prefix, and no others. Entries come in a snapshot
// that is taken now and held until the results are closed or read to their end.
func (k *keySpace) Query(ctx context.Context, q query.Query) (query.Results, error) {
	if k.index.db.IsClosed() {
		return nil, ErrClosed
	}
	under := k.prefix
	if prefix := datastore.NewKey(q.Prefix).String(); prefix != "/" {
		under = append(bytes.Clone(under), prefix+"/"...)
	} else {
		under = append(bytes.Clone(under), '/')
	}
	txn := k.index.db.NewTransaction(false)
	it := txn.NewIterator(badger.IteratorOptions{Prefix: under, PrefetchValues: false})
	it.Rewind()
	wantValue := !q.KeysOnly || len(q.Filters) > 0 || len(q.Orders) > 0
	results := query.ResultsFromIterator(q, query.Iterator{
		Next: func() (query.Result, bool) {
			if !it.Valid() {
				return query.Result{}, false
			}
			defer it.Next()
			if err := ctx.Err(); err != nil {
				return query.Result{Error: err}, true
			}
			item := it.Item()
			e := query.Entry{Key: string(item.Key()[len(k.prefix):]), Size: int(item.ValueSize())}
			if wantValue {
				v, err := item.ValueCopy(nil)
				if err != nil {
					return query.Result{Error: err}, true
				}
				e.Value = v
			}
			return query.Result{Entry: e}, true
		},
		Close: func() error {
			it.Close()
			txn.Discard()
			return nil
		},
	})
	// The prefix is dealt with; what is left is done in memory.
	rest := q
	rest.Prefix = ""
	return query.NaiveQueryApply(rest, results), nil
}

// Batch collects changes that Commit applies in few commits. It is not atomic.
func (k *keySpace) Batch(context.Context) (datastore.Batch, error) {
	return &keySpaceBatch{space: k, changes: map[datastore.Key][]byte{}}, nil
}

// keySpaceBatch is a batch; like every go-datastore batch it is for one goroutine.
type keySpaceBatch struct {
	space   *keySpace
	changes map[datastore.Key][]byte // nil deletes
}

func (b *keySpaceBatch) Put(ctx context.Context, key datastore.Key, value []byte) error {
	if len(value) > MaxRecord {
		return fmt.Errorf("store: value of %d bytes: %w", len(value), ErrTooLarge)
	}
	b.changes[key] = append(make([]byte, 0, len(value)), value...)
	return nil
}

func (b *keySpaceBatch) Delete(ctx context.Context, key datastore.Key) error {
	b.changes[key] = nil
	return nil
}

func (b *keySpaceBatch) Commit(ctx context.Context) error {
	err := b.space.index.batch(func(set func(key, value []byte) error) error {
		for key, value := range b.changes {
			if err := set(b.space.key(key), value); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		clear(b.changes)
	}
	return err
}
