package p2p

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// unsentLimit returns what bounds how much the kernel holds of c that it has not sent
// (TCP_NOTSENT_LOWAT, tcp(7) of FreeBSD and Linux's ip-sysctl), nil if c is no TCP
// connection below TLS. What is on its way, and may have to be sent again, does not count.
func unsentLimit(c net.Conn) func(bytes int) {
	secured, ok := c.(interface{ NetConn() net.Conn })
	if !ok {
		return nil
	}
	tcp, ok := secured.NetConn().(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	return func(bytes int) {
		// A connection that cannot be told is slow to say what is urgent, no more; one
		// that has been closed is told nothing.
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, bytes)
		})
	}
}
