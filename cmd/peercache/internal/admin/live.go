package admin

// Live is what a node is at work on: the data of each event of GET /watch. Keys
// are only ever added. Numbers of bytes only grow while the node runs, and those
// of a blob while it is worked on; rates follow from two snapshots and their
// AtSeconds.
type Live struct {
	ID            string  `json:"id"`
	Version       string  `json:"version"`
	UptimeSeconds float64 `json:"uptime_seconds"`
	// AtSeconds is when the bytes were counted, by a clock of the node that never
	// goes back and starts with the process.
	AtSeconds float64 `json:"at_seconds"`
	// Peers is how many nodes this one is connected to, Readers how many requests
	// of clients it is serving.
	Peers    int      `json:"peers"`
	Readers  int      `json:"readers"`
	Received Received `json:"received"`
	Served   Served   `json:"served"`
	// Blobs are at most 64, oldest first, those wanted by clients before others.
	Blobs []ActiveBlob `json:"blobs"`
}

// ActiveBlob is a blob that is being read, fetched or coordinated.
type ActiveBlob struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"` // bytes, -1 while it is not known
	Have   int64  `json:"have"` // bytes that are here
	Chunks int    `json:"chunks"`
	// Cells shows the chunks in order, at most [MaxCells] letters that each stand
	// for an equal part of them: see [Cell].
	Cells string `json:"cells"`
	// Wanted says that this node wants it for a client, Proven that it is here and
	// was checked against its digest.
	Wanted bool `json:"wanted"`
	Proven bool `json:"proven"`
	// Readers, Transfers and OriginReads count requests of clients, chunks on
	// their way from peers, and requests to the origin.
	Readers     int `json:"readers"`
	Transfers   int `json:"transfers"`
	OriginReads int `json:"origin_reads"`
	// Bytes counts what came from peers and the origin, and what readers found in
	// the store.
	Bytes Served `json:"bytes"`
	// Coordinator is the node that says who reads what from the origin, "" while
	// nobody is asked.
	Coordinator string      `json:"coordinator,omitempty"`
	Neighbours  []Neighbour `json:"neighbours"`
}

// Neighbour is a peer as far as one blob goes.
type Neighbour struct {
	ID string `json:"id"`
	// Chunks is how many it holds, Transfers how many are on their way from it.
	Chunks    int `json:"chunks"`
	Transfers int `json:"transfers"`
	// Bytes counts what came from it.
	Bytes int64 `json:"bytes"`
}

// Cell is one letter of a bar of chunks.
type Cell byte

// The cells. One that stands for several chunks shows what is under way before
// what is at rest.
const (
	CellMissing    Cell = '.'
	CellFromPeer   Cell = 'p' // on its way from a peer
	CellFromOrigin Cell = 'o' // on its way from the origin
	CellPartly     Cell = '+' // some of its chunks are here
	CellHere       Cell = '='
	CellProven     Cell = '#' // here, and the whole blob matches its digest
)

// MaxCells bounds the letters of a bar.
const MaxCells = 256

// Join is the cell for the chunks of two.
func (c Cell) Join(o Cell) Cell {
	here := func(c Cell) bool { return c == CellHere || c == CellProven }
	switch {
	case c == o:
		return c
	case c == CellFromOrigin || o == CellFromOrigin:
		return CellFromOrigin
	case c == CellFromPeer || o == CellFromPeer:
		return CellFromPeer
	case here(c) && here(o):
		return CellHere
	}
	return CellPartly
}

// Cells is a bar of at most width letters for n chunks, of which at tells one by
// one.
func Cells(n, width int, at func(i int) Cell) string {
	bar := make([]byte, min(n, width))
	for k := range bar {
		first, end := k*n/len(bar), (k+1)*n/len(bar)
		c := at(first)
		for i := first + 1; i < end; i++ {
			c = c.Join(at(i))
		}
		bar[k] = byte(c)
	}
	return string(bar)
}
