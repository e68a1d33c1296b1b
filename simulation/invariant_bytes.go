package simulation

// wrongBytes: no complete response carries a wrong byte, whoever lied; and nothing
// goes out before somebody's word counts for it, the last byte not before the whole
// is proven.
//
// Bytes that rotted on this node's disk after they were proven are counted apart, in
// Result.RottenCompletions: only reading everything twice would find them.
type wrongBytes struct{ tally }

func (v *wrongBytes) init() {
	v.Name = "wrong-bytes"
	v.Rule = "no complete response has wrong bytes, and no byte is released before it is vouched for, the last not before the whole is proven"
}

func (v *wrongBytes) released(n *node, cl *client, upto int64) {
	v.Checks++
	b, h := v.c.blobs[cl.blob], n.held[cl.blob]
	switch {
	case h == nil:
		v.broken(n, cl.blob, "a client was given %d bytes of what is not in the store", upto)
	case h.proven:
	case upto >= b.size:
		v.broken(n, cl.blob, "a client was given the last byte of what is not proven")
	default:
		for i := cl.chunk; i < b.n; i++ {
			off, length := b.chunk(i)
			if off+length > upto {
				return
			}
			if !h.level[i].Shareable() {
				v.broken(n, cl.blob, "a client was given chunk %d, which is %v", i, h.level[i])
				return
			}
		}
	}
}

func (v *wrongBytes) completed(n *node, cl *client) {
	v.Checks++
	if cl.wrong {
		v.broken(n, cl.blob, "a client was given all of it, and wrong bytes among them")
	}
}
