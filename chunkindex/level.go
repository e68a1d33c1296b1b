package chunkindex

// Level says how far a chunk's bytes are known to be right. Levels are ordered:
// a higher one includes the lower ones.
type Level uint8

const (
	// Absent: the bytes are not here.
	Absent Level = iota
	// Received: the bytes came from a peer and hash to what this node
	// recorded, but nobody whose word counts has vouched for that hash. Never
	// served to peers, released to clients only once it rises.
	Received
	// Attested: the bytes match a [Claim] signed by a member that read the
	// chunk from the origin or had proven the blob.
	Attested
	// Agreed: two independent holders gave the same SHA-256 for the chunk.
	Agreed
	// Fetched: this node read the chunk from the origin.
	Fetched
	// Proven: the whole blob hashed to its digest.
	Proven
)

var levelNames = [...]string{"absent", "received", "attested", "agreed", "fetched", "proven"}

// String returns the level's name, which is also its name in logs and JSON.
func (l Level) String() string {
	if int(l) < len(levelNames) {
		return levelNames[l]
	}
	return "invalid"
}

// Valid reports whether l is one of the levels above.
func (l Level) Valid() bool { return int(l) < len(levelNames) }

// Shareable reports whether a chunk at this level may be served to peers.
func (l Level) Shareable() bool { return l >= Attested }
