package simulation

// fill is progressive filling (Bertsekas and Gallager, Data Networks, 6.5.2): the
// link with the least share for each of its flows fixes theirs, and what is left is
// shared by the others. Only links that a change can have an effect on are filled:
// those that flows connect with a dirty one.
func (w *network) fill(now int64) {
	w.gather()
	fix := func(i int32, r int64) {
		f := &w.flows[i]
		if f.fixed {
			return
		}
		f.fixed = true
		for _, h := range f.over() {
			w.links[h.link].spare -= r
			w.links[h.link].unsure--
		}
		w.rate(now, i, r)
	}
	for {
		least, level := int32(-1), int64(0)
		kept := w.rated[:0]
		for _, l := range w.rated {
			k := &w.links[l]
			if k.unsure == 0 {
				continue
			}
			kept = append(kept, l)
			if s := share(k.spare, k.unsure); least < 0 || s < level {
				least, level = l, s
			}
		}
		w.rated = kept
		if least < 0 {
			return
		}
		again := false
		for _, i := range w.limited {
			if f := &w.flows[i]; !f.fixed && max(f.most, 0) <= level {
				fix(i, max(f.most, 0))
				again = true
			}
		}
		if again {
			continue
		}
		for _, r := range w.links[least].flows {
			fix(r.flow(), level)
		}
	}
}

// gather collects the links that are to be filled, and their flows that have limits
// of their own.
func (w *network) gather() {
	w.rated, w.limited = append(w.rated[:0], w.dirty...), w.limited[:0]
	for _, l := range w.rated {
		w.links[l].unsure = -1
	}
	for k := 0; k < len(w.rated); k++ {
		from := &w.links[w.rated[k]]
		from.spare = from.rate
		for _, r := range from.flows {
			f := &w.flows[r.flow()]
			f.fixed = false
			if f.most != 0 && r&7 == 0 {
				w.limited = append(w.limited, r.flow())
			}
			for _, h := range f.over() {
				if o := &w.links[h.link]; o.unsure != -1 {
					o.unsure = -1
					w.rated = append(w.rated, h.link)
				}
			}
		}
	}
	for _, l := range w.rated {
		w.links[l].unsure = int64(len(w.links[l].flows))
	}
}
