//go:build !linux

package simulation

// useHugePages does nothing: only Linux is asked for huge pages.
func useHugePages(int64) {}
