package simulation

import "time"

// LinkClass says what kind of link bytes went over.
type LinkClass uint8

// The classes. A byte from another zone counts in each class that it goes over.
const (
	// Access are the nodes' own links, by what they received.
	Access LinkClass = iota
	// RackUplink and ZoneUplink are the links of racks to their zone, and of zones to the
	// others and to the origin, both ways together; PaidUplink is the part of the latter
	// that is paid for.
	RackUplink
	ZoneUplink
	PaidUplink
	// OriginLink is the origin's.
	OriginLink
	// LinkClasses is how many there are.
	LinkClasses
)

var linkClassNames = [LinkClasses]string{"access", "rack-uplink", "zone-uplink", "paid-uplink", "origin"}

// String is the class's name as in reports.
func (l LinkClass) String() string { return linkClassNames[l] }

// PullResult says how one pull went. Times count from the start of the run.
type PullResult struct {
	Node, Image int
	// At is when it was to begin: at the run's time, or when the wave before was done. Begun is when
	// it did, later if its node was away.
	At, Begun time.Duration
	// First is when the first byte of a layer came, Done when all had come; 0 never.
	First, Done time.Duration
	// Status is what the client was told at last where it is not done: an HTTP status,
	// 0 if it is still waiting.
	Status int
	// Failures is how often it was told that it cannot have a blob.
	Failures int
	// Excused: its node was dead, or parted from everything, when it should have
	// been done.
	Excused bool
}

// Point is the state of a run at a time. Bytes and counts are from the start.
type Point struct {
	At time.Duration
	// Done is how many pulls are complete.
	Done int
	// FromOrigin, FromPeers and FromStore are payload bytes that nodes got, and that their
	// clients got without a transfer.
	FromOrigin, FromPeers, FromStore int64
	// Egress is what the origin sent, aborted and hedged bytes included.
	Egress int64
	// Links are the bytes that went over each class of links.
	Links [LinkClasses]int64
	// Messages is how many control messages were sent.
	Messages int64
}

// Invariant is one of the rules that hold at every step.
type Invariant struct {
	// Name is short, as in reports; Rule says what must hold.
	Name, Rule string
	// Checks is how often it was checked, Violations how often it did not hold.
	Checks, Violations int64
	// First says what happened at the first violation, and when.
	First string
}
