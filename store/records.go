package store

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/dgraph-io/badger/v4"
)

// MaxRecord is the largest value of a record, in bytes, and MaxRecordKey the
// longest key.
const (
	MaxRecord    = 256 << 10
	MaxRecordKey = 4 << 10
)

func recordPrefix(space string) []byte {
	return append(append([]byte{spaceRecord}, space...), 0)
}

func checkRecord(space, key string, value []byte) error {
	if strings.IndexByte(space, 0) >= 0 {
		return fmt.Errorf("store: record space %q holds a zero byte", space)
	}
	if len(space)+len(key) > MaxRecordKey || len(value) > MaxRecord {
		return fmt.Errorf("store: record of %d+%d bytes: %w", len(key), len(value), ErrTooLarge)
	}
	return nil
}

// PutRecord stores a small value (a tag's answer, a size) under a space, which
// names what it is for, and a key. It replaces what was there. It survives this
// process at once, and a power cut a few seconds later. It fails with
// [ErrTooLarge] beyond [MaxRecord] and [MaxRecordKey], and with [ErrNoSpace].
// Records do not count towards the byte budget.
func (s *Store) PutRecord(space, key string, value []byte) error {
	if err := checkRecord(space, key, value); err != nil {
		return err
	}
	k := append(recordPrefix(space), key...)
	// Badger keeps the slice until it is written; it is the caller's.
	if err := s.index.update(func(txn *badger.Txn) error { return txn.Set(k, bytes.Clone(value)) }); err != nil {
		return fmt.Errorf("store: putting a record into %s: %w", space, err)
	}
	return nil
}

// Record returns the value, or fails with fs.ErrNotExist.
func (s *Store) Record(space, key string) ([]byte, error) {
	if err := checkRecord(space, key, nil); err != nil {
		return nil, err
	}
	v, err := s.index.get(append(recordPrefix(space), key...))
	if err != nil {
		return nil, fmt.Errorf("store: record in %s: %w", space, err)
	}
	return v, nil
}

// Records calls fn for each record of a space, ordered by key, until it returns
// false. fn may keep key and value, and may call the store; it sees the state at
// the beginning.
func (s *Store) Records(space string, fn func(key string, value []byte) bool) error {
	if err := checkRecord(space, "", nil); err != nil {
		return err
	}
	prefix := recordPrefix(space)
	err := s.index.scan(prefix, func(key, value []byte) (bool, error) {
		return fn(string(key[len(prefix):]), bytes.Clone(value)), nil
	})
	if err != nil {
		return fmt.Errorf("store: records of %s: %w", space, err)
	}
	return nil
}

// DeleteRecord removes a record. Removing one that is not there is no error.
func (s *Store) DeleteRecord(space, key string) error {
	if err := checkRecord(space, key, nil); err != nil {
		return err
	}
	k := append(recordPrefix(space), key...)
	if err := s.index.update(func(txn *badger.Txn) error { return txn.Delete(k) }); err != nil {
		return fmt.Errorf("store: deleting a record of %s: %w", space, err)
	}
	return nil
}
