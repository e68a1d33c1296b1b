package report

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/peercache/peercache/simulation/scenario"
)

// Fault is one thing that went wrong, for people and programs.
type Fault struct {
	At float64 `json:"at_seconds"`
	// Until is when it was over; null: never.
	Until *float64 `json:"until_seconds"`
	Kind  string   `json:"kind"`
	Text  string   `json:"text"`

	at, until time.Duration
	ever      bool
}

func faults(run *scenario.Run) []Fault {
	var all []Fault
	for i := range run.Faults {
		f := &run.Faults[i]
		out := Fault{At: seconds(f.At), Kind: string(f.Kind), Text: describe(f), at: f.At}
		if out.until, out.ever = f.Heals(); out.ever {
			s := seconds(out.until)
			out.Until = &s
		}
		all = append(all, out)
	}
	return all
}

// describe says what a fault is in words: who, and how.
func describe(f *scenario.Fault) string {
	who := nodeList(f.Nodes)
	if f.Role != "" {
		who = "the " + string(f.Role)
	}
	where := func(text string) string { // of the origin, perhaps for some nodes alone
		if len(f.Nodes) > 0 || f.Role != "" {
			return text + ", for " + who
		}
		return text
	}
	back := ""
	if f.Restart > 0 {
		back = ", back " + duration(f.Restart) + " later"
	}
	part := percent(int64(f.Part))
	switch f.Kind {
	case scenario.Crash:
		return who + cmp.Or(back, ", for good")
	case scenario.Drain:
		return who + ", " + duration(f.Notice) + " notice" + back
	case scenario.Partition:
		if f.OneWay {
			return who + ": what they send is lost"
		}
		return who + ", from all others"
	case scenario.Offline:
		return who + ", from the origin alone"
	case scenario.Loss:
		return who + ": " + part + " of the packets"
	case scenario.SlowNIC, scenario.SlowDisk:
		if f.Kind == scenario.SlowDisk {
			return who + ": " + size(f.Rate) + "/s"
		}
		return who + ": " + rate(f.Rate)
	case scenario.SlowNode:
		return who + ": " + duration(f.Delay) + " a message"
	case scenario.Rot:
		return who + ": " + part + " of the chunks held"
	case scenario.ClockSkew:
		text := who + ": off by " + duration(f.Delay)
		if f.Part != 0 {
			text += fmt.Sprintf(", %s too fast", part)
		}
		return text
	case scenario.StaleDHT:
		return where("look-ups are answered as of then")
	case scenario.OriginThrottle:
		return where("429, Retry-After " + duration(f.Delay))
	case scenario.OriginError:
		return where(fmt.Sprintf("every answer is %d", f.Status))
	case scenario.OriginReset:
		return where(part + " of the answers break off")
	case scenario.OriginStall:
		return where("requests are taken, nothing is sent")
	case scenario.OriginOutage:
		return where("connections are refused")
	case scenario.ExpiredToken:
		return where("401")
	}
	return who
}

// nodeList names nodes as people would: runs of them together, and not too many.
func nodeList(nodes []int) string {
	if len(nodes) == 0 {
		return "no node"
	}
	runs := scenario.Terms(nodes)
	const most = 8
	if len(runs) > most {
		return fmt.Sprintf("%s nodes (%s, …)", count(len(nodes)), strings.Join(runs[:most-2], ", "))
	}
	if len(nodes) == 1 {
		return "node " + runs[0]
	}
	text := "nodes " + strings.Join(runs, ", ")
	if len(runs) > 2 {
		text += fmt.Sprintf(" (%d)", len(nodes))
	}
	return text
}
