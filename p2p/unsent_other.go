//go:build !linux

package p2p

import "net"

// unsentLimit returns nil: the kernel decides.
func unsentLimit(net.Conn) func(bytes int) { return nil }
