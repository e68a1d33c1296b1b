package store_test

import (
	"testing"

	dstest "github.com/ipfs/go-datastore/test"

	"github.com/peercache/peercache/store"
	"github.com/peercache/peercache/store/storetest"
)

func open(t *testing.T, dir string) storetest.Store {
	s, err := store.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return storetest.Wrap(s)
}

func TestConformance(t *testing.T) { storetest.Run(t, open) }

func TestDatastore(t *testing.T) {
	t.Parallel()
	s, err := store.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	// Another datastore, with a name that is a prefix, must not be seen.
	other := s.Datastore("provider")
	dstest.SubtestBasicPutGet(t, other)
	dstest.SubtestAll(t, s.Datastore("providers"))
}
