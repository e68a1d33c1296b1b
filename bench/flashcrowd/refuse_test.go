package main

import (
	"strings"
	"testing"

	"github.com/peercache/peercache/simulation/scenario"
)

func parsed(t *testing.T, text string) *experiment {
	t.Helper()
	s, err := scenario.Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	run, err := s.Expand(1, 0)
	if err != nil {
		t.Fatal(err)
	}
	return ofScenario("test.yaml", run)
}

const possible = `name: test
topology: {nodes: 4, link: 100mbit}
images: [{name: a, layers: 10MiB}]
`

func TestRefuse(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string // in the error; none: it can be done
	}{
		{"a flash crowd", possible, nil},
		{"all faults that processes can have", possible + `faults:
  - {kind: crash, at: 1000ms, nodes: [1], restart: 1s}
  - {kind: drain, at: 4000ms, nodes: [1], notice: 1s}
  - {kind: stall, at: 7000ms, nodes: [1]}
  - {kind: corrupt, at: 10000ms, nodes: [1]}
  - {kind: bit-rot, at: 13000ms, nodes: [1], part: 1%}
  - {kind: partition, at: 16000ms, nodes: [1], one_way: true}
  - {kind: offline, at: 19000ms, nodes: [1]}
  - {kind: slow-nic, at: 22000ms, nodes: [1], rate: 1mbit}
  - {kind: origin-throttle, at: 25000ms, for: 1s}
  - {kind: origin-error, at: 28000ms, for: 1s}
  - {kind: origin-reset, at: 31000ms, for: 1s}
  - {kind: origin-stall, at: 34000ms, for: 1s}
  - {kind: origin-outage, at: 37000ms, for: 1s}
  - {kind: expired-token, at: 40000ms, for: 1s}
`, nil},
		{"others are named, with their lines", possible + `faults:
  - {kind: crash, at: 1s, nodes: [1]}
  - {kind: loss, at: 1s, nodes: [1], part: 1%}
  - {kind: mute, at: 1s, nodes: [1]}
`, []string{"test.yaml:6: fault loss:", "test.yaml:7: fault mute:"}},
		{"a disk", strings.Replace(possible, "nodes: 4", "nodes: 4, disk: 1MiB/s", 1), []string{"node 0 has a disk of 1MiB/s"}},
		{"racks", strings.Replace(possible, "nodes: 4", "nodes: 4, rack_size: 2, rack_uplink: 1gbit", 1), []string{"rack 0 has an uplink"}},
		{"a latency", possible + "latency: {rack: 20ms}\n", []string{"latency.rack of 20ms"}},
		{"a view that misses members", possible + "dht: {misses: 1%}\n", []string{"dht.misses"}},
		{"too many nodes", strings.Replace(possible, "nodes: 4", "nodes: 1001", 1), []string{"1001 nodes"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := refuse(parsed(t, c.text))
			if len(c.want) == 0 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v: no %q in it", err, want)
				}
			}
		})
	}
}

// Every kind of fault is either carried out or refused for a reason.
func TestEveryFaultIsKnownOrRefused(t *testing.T) {
	for _, k := range []scenario.FaultKind{
		scenario.Crash, scenario.Drain, scenario.Partition, scenario.Offline, scenario.Loss, scenario.SlowNIC, scenario.SlowDisk,
		scenario.SlowNode, scenario.FullDisk, scenario.Rot, scenario.Corrupt, scenario.Forge, scenario.Lie, scenario.Stall, scenario.Mute,
		scenario.ClockSkew, scenario.StaleDHT, scenario.OriginThrottle, scenario.OriginError, scenario.OriginReset, scenario.OriginStall,
		scenario.OriginOutage, scenario.ExpiredToken,
	} {
		if _, refused := unable[k]; refused == known(k) {
			t.Errorf("%s: known %v, refused %v", k, known(k), refused)
		}
	}
}
