package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/peercache/peercache/simulation"
	"github.com/peercache/peercache/simulation/report"
	"github.com/peercache/peercache/simulation/scenario"
	"github.com/peercache/peercache/simulation/scenarios"
)

// shrink leaves faults out of a failing run for as long as it fails in one of the ways
// in which it failed, writes what is left to a file, and says how to run that. A run
// that gave an error, and no report, has to give one.
func (t *trial) shrink(ctx context.Context, seed uint64, gaveError bool) error {
	run, err := t.expand(seed)
	if err != nil {
		return usageError(err)
	}
	if len(run.Faults) == 0 {
		fmt.Fprintln(t.p.stderr, "There is nothing to shrink: the run has no faults.")
		return nil
	}
	fmt.Fprintf(t.p.stderr, "Shrinking the %d faults of seed %d; Ctrl-C keeps what is left by then\n", len(run.Faults), seed)
	about := t.about(seed)
	var ways []string
	first := !gaveError
	least, err := simulation.Shrink(ctx, run, t.options, func(res *simulation.Result) bool {
		now := report.New(run, res, about).Ways()
		if first {
			first, ways = false, now
		}
		return slices.ContainsFunc(now, func(w string) bool { return slices.Contains(ways, w) })
	})
	if least == nil {
		return err
	}
	file, again, werr := t.writeShrunk(run, least)
	if werr != nil {
		return werr
	}
	fmt.Fprintf(t.p.stderr, "%d of %d faults are left, in %s\nAgain: %s\n", len(least.Faults), len(run.Faults), file, again)
	if err != nil {
		return errInterrupted
	}
	return nil
}

// writeShrunk writes the faults that are left: as a scenario where the format can say
// them, else as a list for --faults. It returns the file and the line that runs it.
func (t *trial) writeShrunk(run, least *scenario.Run) (file, command string, err error) {
	base := fmt.Sprintf("%s-seed-%d-shrunk", run.Name, run.Seed)
	write := func(name string, data []byte) (string, error) {
		path := filepath.Join(t.flags.out, name)
		return path, os.WriteFile(path, data, 0o666)
	}
	again := *t
	flags := *t.flags
	again.flags, flags.seeds = &flags, ""
	seed := strconv.FormatUint(run.Seed, 10)
	if text := t.shrunkText(least); text != nil {
		file, err = write(base+".yaml", text)
		// A bare name would be one of the library.
		again.name, flags.faults = file, ""
		return file, again.command(seed), err
	}
	data, err := json.MarshalIndent(faultFile{Scenario: t.name, Seed: run.Seed, Faults: jsonFaults(least.Faults)}, "", "  ")
	if err != nil {
		return "", "", err
	}
	file, err = write(base+".json", append(data, '\n'))
	flags.faults = file
	return file, again.command(seed), err
}

// topFaults is the key with all that belongs to it: until the next line that begins
// with a letter.
var topFaults = regexp.MustCompile(`(?m)^faults:.*\n(?:(?:[ \t#-].*)?\n)*`)

// shrunkText is the scenario's file with the faults of least instead of its own; nil if
// that is not the same run.
func (t *trial) shrunkText(least *scenario.Run) []byte {
	if t.name == faultSearch {
		return nil
	}
	file, data, err := scenarios.Open(t.name)
	if err != nil {
		return nil
	}
	text := strings.TrimRight(topFaults.ReplaceAllString(string(data)+"\n", ""), "\n") + "\n" + faultsYAML(least.Faults)
	s, err := scenario.Parse(file, []byte(text))
	if err != nil {
		return nil
	}
	run, err := s.Expand(least.Seed, t.flags.nodes)
	if err != nil {
		return nil
	}
	if t.flags.verify != "" {
		run.Verify = t.flags.verify
	}
	as := *least
	as.Name, as.Notes, run.Notes = run.Name, nil, nil
	as.Faults, run.Faults = lineless(as.Faults), lineless(run.Faults)
	if !reflect.DeepEqual(&as, run) {
		return nil
	}
	return []byte(text)
}

// lineless are faults without where they stand.
func lineless(faults []scenario.Fault) []scenario.Fault {
	faults = slices.Clone(faults)
	for i := range faults {
		faults[i].Line = 0
	}
	return faults
}

// faultsYAML writes faults in the format of scenarios.
func faultsYAML(faults []scenario.Fault) string {
	if len(faults) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("faults:\n")
	for i := range faults {
		f := &faults[i]
		fmt.Fprintf(&b, "  - kind: %s\n", f.Kind)
		line := func(key string, is bool, value any) {
			if is {
				fmt.Fprintf(&b, "    %s: %v\n", key, value)
			}
		}
		line("at", true, f.At)
		line("for", f.For > 0, f.For)
		line("nodes", len(f.Nodes) > 0, strconv.Quote(strings.Join(scenario.Terms(f.Nodes), ", ")))
		line("role", f.Role != "", f.Role)
		line("restart", f.Restart > 0, f.Restart)
		line("notice", f.Notice > 0, f.Notice)
		line("delay", f.Delay != 0, f.Delay)
		sign, part := "", f.Part
		if part < 0 {
			sign, part = "-", -part
		}
		line("part", part != 0, fmt.Sprintf("%s%d.%04d%%", sign, part/10_000, part%10_000))
		line("rate", f.Rate > 0, scenario.RateText(f.Rate))
		line("status", f.Status > 0, f.Status)
		line("one_way", f.OneWay, f.OneWay)
	}
	return b.String()
}
