package store_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/peercache/peercache/store"
)

func TestMain(m *testing.M) {
	if child, err := store.RunChild(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	} else if child {
		return
	}
	goleak.VerifyTestMain(m,
		// What badger leaves behind when it fails to open a broken index.
		goleak.IgnoreAnyFunction("github.com/dgraph-io/badger/v4.(*DB).monitorCache"),
		goleak.IgnoreAnyFunction("github.com/dgraph-io/ristretto/v2/z.(*AllocatorPool).freeupAllocators"),
	)
}
