package main

import (
	"context"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// socket is one look at a TCP connection that has something to send.
type socket struct {
	Unsent   float64 `json:"unsent"`    // bytes that were written and not sent
	InFlight float64 `json:"in_flight"` // bytes that were sent and not acknowledged
	RTT      float64 `json:"rtt"`       // ms
}

// samplePeriod is long enough not to cost anything.
const samplePeriod = 25 * time.Millisecond

// busy is how much must be on its way for a connection to count as one with chunks:
// more than messages make.
const busy = 16 << 10

// sampleSockets looks at this process's connections again and again until ctx ends.
// Their owner does not give them out, so it looks at all descriptors.
func sampleSockets(ctx context.Context) (list []socket) {
	for ctx.Err() == nil {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return list
		}
		for _, e := range entries {
			fd, err := strconv.Atoi(e.Name())
			if err != nil {
				continue
			}
			info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
			if err != nil { // no TCP socket, or closed since
				continue
			}
			s := socket{float64(info.Notsent_bytes), float64(info.Unacked) * float64(info.Snd_mss), float64(info.Rtt) / 1e3}
			if s.InFlight > busy {
				list = append(list, s)
			}
		}
		wait(ctx, samplePeriod)
	}
	return list
}
