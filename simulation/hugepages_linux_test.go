package simulation

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"testing"
	"unsafe"
)

// advised returns the ranges of memory for which huge pages were asked for.
func advised(t *testing.T) (ranges [][2]uintptr) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skip(err)
	}
	var last [2]uintptr
	for line := range bytes.Lines(data) {
		var first, end uintptr
		if n, _ := fmt.Sscanf(string(line), "%x-%x ", &first, &end); n == 2 {
			last = [2]uintptr{first, end}
		}
		if bytes.HasPrefix(line, []byte("VmFlags:")) && bytes.Contains(line, []byte(" hg ")) {
			ranges = append(ranges, last)
		}
	}
	return ranges
}

// TestHugePages: what is allocated after useHugePages is in memory for which huge pages
// were asked for, as soon as what was free before is used up. Else a large run took a
// fifth longer.
func TestHugePages(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage"); err != nil {
		t.Skip("this system has no huge pages")
	}
	const part = 1 << 20
	useHugePages(manyPages)
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	parts := make([][]byte, stats.HeapIdle/part)
	for i := range parts {
		parts[i] = make([]byte, part)
	}
	in := 0
	for _, r := range advised(t) {
		for _, p := range parts {
			if at := uintptr(unsafe.Pointer(&p[0])); r[0] <= at && at < r[1] {
				in++
			}
		}
	}
	if in < manyPages/part/2 {
		t.Errorf("of %d parts %d are in memory for which huge pages were asked for", len(parts), in)
	}
}
