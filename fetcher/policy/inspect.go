package policy

// Census counts what a core has under way and holds on to. Of one that was left
// alone for long enough, with no client and nobody who asks it for anything, all
// counts are zero.
type Census struct {
	// Blobs are those with state in memory; what is at rest in the store has none.
	// Coordinated are those of them that others are granted stripes of, Remembered
	// those that are kept to tell joiners who else wants them.
	Blobs, Coordinated, Remembered int
	// Readers are clients' requests that have not ended, Askers and Grants what
	// coordinated blobs have.
	Readers, Askers, Grants int
	// Transfers and Reads are under way from peers and from origins, questions for a
	// size among the latter; those that were cancelled count until their end is
	// reported. Uploads are under way to peers, Connecting are attempts to connect.
	Transfers, Reads, Uploads, Connecting int
	// InFlight is the number of bytes that transfers and reads may hold in memory.
	InFlight int64
}

// Census counts what is under way. Like Step it is for the core's owner alone. It
// changes nothing.
func (c *Core) Census() Census {
	n := Census{Blobs: len(c.order), Readers: len(c.readers), Transfers: len(c.transfers), Reads: len(c.reads),
		Uploads: len(c.uploads), Connecting: c.connecting, InFlight: c.inFlight}
	for _, b := range c.order {
		if b.swarm != nil {
			n.Remembered++
		}
		if b.coord != nil {
			n.Coordinated++
			n.Askers += len(b.coord.askers)
			n.Grants += len(b.coord.grants)
		}
	}
	return n
}
