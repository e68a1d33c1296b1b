package simulation

import (
	"runtime"
	"syscall"
	"unsafe"
)

const (
	hugePage = 2 << 20
	// manyPages is what a run takes at least for huge pages to be worth it.
	manyPages = 64 << 20
)

// useHugePages has the memory that a run is about to take come in pages of 2 MiB where
// the system has them for those that ask (transparent_hugepage/enabled is madvise, the
// default of most distributions). A large cluster's events go from one node to any
// other, so that with pages of 4 KiB nearly each also misses the processor's cache of
// page addresses, which costs a fifth of a run.
//
// Go has no such setting. But what it has got from the system stays where it is and as
// it was advised: so one block as large as the run is taken, advised before anything
// touches it, and given back to Go, for what the run allocates.
func useHugePages(size int64) {
	if size < manyPages {
		return
	}
	block := make([]byte, size)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(block))) % hugePage
	_ = syscall.Madvise(block[skip:], syscall.MADV_HUGEPAGE) // without it, it is as it was
	runtime.GC()
}
