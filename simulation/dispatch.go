package simulation

import "github.com/peercache/peercache/fetcher/policy"

// dispatch has one thing happen.
func (c *cluster) dispatch(x *item) {
	kind, n := x.kind(), c.nodes[x.node]
	switch kind {
	case evFlow:
		c.flowed(int32(x.arg), x.life)
		return
	case evUpload:
		c.upload(x.arg)
		return
	case evFlowStart:
		c.startFlow(x.arg)
		return
	case evRefused:
		c.transferFailed(x.arg)
		return
	case evOrigin:
		c.answered(x.arg)
		return
	case evAsked:
		c.asked(x.arg)
		return
	case evNothing:
		c.nothing(x.arg)
		return
	case evAgain:
		c.again(x.arg)
		return
	case evIdle:
		c.idle(x.arg)
		return
	case evFault:
		c.begin(int(x.arg))
		return
	case evLeave:
		c.leave(int(x.arg))
		return
	case evSilence:
		c.silence(int(x.arg))
		return
	case evHeal:
		c.heal(int(x.arg))
		return
	case evPull:
		c.pull(int32(x.arg))
		return
	case evJoin:
		c.join(n, c.acquaintances(n))
		c.rules.joined(n)
		return
	case evSample:
		if !c.ending {
			c.opt.sample(c)
			c.q.push(c.now+int64(c.opt.sampleTime), evSample, 0, 0, 0)
		}
		return
	case evMessage:
		c.arrived(n, int32(x.arg), x.life)
		return
	case evTaken:
		if x.life == n.life && n.next == c.now && len(n.inbox) > 0 {
			c.takeNext(n)
		}
		return
	case evPost:
		ev := c.posts.take(int32(x.arg))
		if x.life == n.life {
			c.step(n, ev)
		}
		return
	case evLooked:
		q := c.questions.take(int32(x.arg))
		if x.life == n.life {
			c.looked(n, q)
		}
		return
	}
	if x.life == n.life {
		c.befall(n, kind, x.arg)
	}
}

// befall has something happen to a node that is still the one it was planned for.
func (c *cluster) befall(n *node, kind eventKind, arg uint64) {
	switch kind {
	case evTimer:
		c.timer(n)
	case evStored:
		c.stored(n, int(arg>>32), int(uint32(arg)))
	case evWritten:
		c.wrote(n)
	case evProve:
		c.proved(n, int32(arg), arg&refutes != 0)
	case evConsumed:
		c.consumed(n, policy.ID(arg))
	case evClients:
		c.resume(n)
	case evRetry:
		c.retry(n, int32(arg>>32), int(uint32(arg)))
	case evHangUp:
		c.hangUp(n, policy.ID(arg))
	case evServed:
		c.served(n, policy.ID(arg))
	case evPeerDown:
		c.step(n, policy.Event{Kind: policy.EvPeerDown, Peer: c.nodes[arg].id})
	case evConnect:
		c.connect(n, c.nodes[arg])
	case evRedial:
		c.redial(n, c.nodes[arg])
	case evUploaded:
		c.step(n, policy.Event{Kind: policy.EvUploaded, ID: policy.ID(arg)})
	case evCancelled:
		c.step(n, policy.Event{Kind: policy.EvTransferFailed, ID: policy.ID(arg), Fault: policy.FaultCancelled})
	case evOriginStop:
		c.step(n, policy.Event{Kind: policy.EvOriginFailed, ID: policy.ID(arg), Status: 499})
	}
}

func (c *cluster) timer(n *node) {
	if n.timerDue != c.now {
		return
	}
	n.timerDue = 0
	switch {
	case n.timerAt == 0:
	case n.timerAt > c.now:
		n.timerDue = c.q.push(n.timerAt, evTimer, n.index, n.life, 0)
	default:
		n.timerAt = 0
		c.step(n, policy.Event{Kind: policy.EvTimer})
	}
}
