package policy

// Core is the policy of one node over all blobs. It is not safe for concurrent
// use: one goroutine owns it.
type Core struct {
	cfg Config
}

// New returns the core of a node that knows no peer and no blob.
func New(cfg Config) *Core { return &Core{cfg: cfg} }

// Step takes one event that happened at now and appends the effects that follow
// from it to dst.
func (c *Core) Step(now Time, ev Event, dst []Effect) []Effect { return dst }
