package store_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/peercache/peercache/store"
)

func TestMain(m *testing.M) {
	if store.RunChild() { // a process that a test started, to be killed
		os.Exit(1)
	}
	goleak.VerifyTestMain(m,
		// What badger leaves behind when it fails to open a broken index.
		goleak.IgnoreAnyFunction("github.com/dgraph-io/badger/v4.(*DB).monitorCache"),
		goleak.IgnoreAnyFunction("github.com/dgraph-io/ristretto/v2/z.(*AllocatorPool).freeupAllocators"),
	)
}
