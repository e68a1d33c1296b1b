package policy

// hedge turns to the origin itself for the sake of a reader that has waited for
// too long, whatever the coordinator says.
func (c *Core) hedge(b *blob) {
	for _, r := range b.readers {
		i, waiting := b.head(r)
		if waiting && b.busy[i]&byOrigin != 0 && !b.have.Has(i) {
			c.dropHung(b, r, i)
		}
		heldBack := waiting && b.have.Has(i)
		if heldBack {
			// Only the proof of the whole releases it, for which the others must come.
			if i = b.have.NextClear(0); i < 0 {
				continue
			}
		}
		if !waiting || b.have.Has(i) || b.busy[i]&(byOrigin|byStore) != 0 || b.granted(i) || len(c.up) == 0 {
			continue
		}
		// Where others read for all, their progress is what to wait for: at a
		// slow origin every node would else lose patience at the same moment.
		// And where the origin fails, whoever coordinates looks whether it still does.
		since, patience := max(r.since, c.patientUntil(b)), c.cfg.Patience
		switch {
		case heldBack:
			since = max(since, b.progress)
		case c.inFlightAt(b, i):
			// But not for ever: others may get what this reader does not wait for.
			since = max(since, min(b.progress, r.since.Add(c.cfg.Patience/2)))
		case b.busy[i] == 0 && !c.servable(b, i):
			since, patience = max(since, min(b.progress, r.since.Add(c.cfg.Patience/2))), c.cfg.Standstill
			if c.crowded() {
				patience = c.cfg.Patience // nor does this node see who reads
			}
		case b.zone != nil && c.zoned(b):
			// It comes over from another zone, for others as well.
			patience *= 2
		case c.now < c.lastBytes.Add(c.cfg.Standstill):
			// Peers have it, and what they send of other blobs fills this node's link:
			// the origin's bytes would come no sooner.
			patience *= 2
		}
		if c.reached(b, since.Add(patience)) && c.roomForRead(b, c.cfg.LoneReads, c.cfg.OriginReads) {
			c.count(CountHedge, 1)
			if id := b.ask.to; !id.IsZero() && b.ask.bits.Has(i) && c.now >= b.ask.at.Add(c.cfg.Standstill) {
				// It was asked, is alive, and neither grants nor knows of
				// anybody who serves: the next in rank may be of more use.
				b.passed = append(b.passed, id)
				b.ask = asking{}
			}
			for _, n := range b.neighbours {
				if n.inFlight.Has(i) {
					// It says that it reads what does not come.
					forget(&n.inFlight)
					c.avoid(b, n.p.id, 1)
				}
			}
			c.startRead(b, run{first: i, end: b.stripeEnd(i)})
		}
	}
}

// dropNeedless ends reads that were begun because there was nobody to ask, once
// peers have come that hold all that they would still bring.
func (c *Core) dropNeedless(b *blob) {
	if len(c.up) == 0 || b.epoch > 0 {
		return
	}
	for _, r := range c.sortedReads(b) {
		if !r.alone {
			continue
		}
		needless := true
		for i := r.first; i < r.end && needless; i++ {
			needless = b.have.Has(i) || b.busy[i]&byStore != 0 || c.servable(b, i)
		}
		if needless {
			c.cancelRead(r)
		}
	}
}

// dropHung ends this node's own read of chunk i if its bytes trickle so slowly that
// the reader which waits for them would be given up.
func (c *Core) dropHung(b *blob, reader *reader, i int) {
	for _, r := range c.sortedReads(b) {
		if r.sizeOnly || i < r.first || i >= r.end {
			continue
		}
		if c.reached(b, max(reader.since, r.started, r.brought).Add(2*c.cfg.Patience)) {
			c.cancelRead(r)
			c.originFailed(r, 504, 0)
		}
	}
}
