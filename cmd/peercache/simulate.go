package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/peercache/peercache/cmd/peercache/internal/config"
	"github.com/peercache/peercache/simulation"
	"github.com/peercache/peercache/simulation/report"
	"github.com/peercache/peercache/simulation/scenario"
	"github.com/peercache/peercache/simulation/scenarios"
)

// faultSearch is the scenario that is not in the library: its runs are drawn.
const faultSearch = "fault-search"

const faultSearchText = "A small cluster in which everything is drawn at random, and several things go wrong. Is any rule ever broken?"

// maxSeeds is how many runs one command makes at most.
const maxSeeds = 100_000

// simulateFlags are the flags of simulate.
type simulateFlags struct {
	seed            uint64
	seeds           string
	nodes           int
	out, faults     string
	json, shrink    bool
	verify, sharing string
	memory          string
}

func (p *program) simulateCommand() *cobra.Command {
	var f simulateFlags
	cmd := &cobra.Command{
		Use:   "simulate SCENARIO",
		Short: "Try a rollout, or a disaster, on simulated nodes",
		Long: `Simulates a whole cluster on this machine: the nodes decide with the code that
they run in production, the network, the disks and the registry are a model. The
scenario is one of the library by its name (see 'peercache simulate list'), a
file, or fault-search, whose runs are drawn at random. The same scenario and seed
give the same run on every machine, with the same trace hash.

With --seeds it makes a run for each seed, two at a time, and says what they have in
common. With --out it writes result.json and report.html, a page with plots that
needs nothing else, into a directory; of several seeds also one for each.

With --shrink a run that fails is repeated with fewer and fewer faults, until
none can be left out, and what is left is written to a file.

Exit codes: 0 everything was as demanded, 1 a rule or a limit was broken or a client
was not served, 2 wrong usage, scenario or too little memory (nothing was run), 130
interrupted; then the report is of what happened until then.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("seed") && f.seeds != "" {
				return usageError(errors.New("--seed and --seeds exclude each other"))
			}
			t, err := p.trial(args[0], &f)
			if err != nil {
				return usageError(err)
			}
			if os.Getenv("GOGC") == "" {
				// A run keeps most of what it allocates: that garbage goes sooner costs it
				// next to no time, and saves a quarter of the memory.
				debug.SetGCPercent(50)
			}
			return t.do(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.Uint64Var(&f.seed, "seed", 1, "what decides everything that is random")
	flags.StringVar(&f.seeds, "seeds", "", "a run for each of `FIRST..LAST`")
	flags.IntVar(&f.nodes, "nodes", 0, "scale the scenario to `N` nodes; 0 as written")
	flags.StringVar(&f.out, "out", "", "write result.json and report.html into `DIR`")
	flags.BoolVar(&f.json, "json", false, "print the result as JSON")
	flags.BoolVar(&f.shrink, "shrink", false, "leave faults out of a failing run for as long as it fails")
	flags.StringVar(&f.verify, "verify", "", "`RULE` of release, member or strict; the scenario's by default")
	flags.StringVar(&f.sharing, "sharing", simulation.AutoShare.String(), "how flows share links: max-min, which is exact but slow above 50 nodes, leveled, which comes close to it, equal, or auto for the best of these")
	flags.StringVar(&f.memory, "memory", "", "refuse runs that need more than `SIZE` of memory; what is free by default")
	flags.StringVar(&f.faults, "faults", "", "take the faults from a `FILE` that --shrink wrote")
	cmd.AddCommand(p.simulateListCommand(), p.simulatePlanCommand())
	return cmd
}

func (p *program) simulateListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the scenarios of the library",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			for _, name := range append(scenarios.Names(), faultSearch) {
				text := faultSearchText
				if name != faultSearch {
					s, err := openScenario(name)
					if err != nil {
						return err
					}
					text = s.Description
				}
				if _, err := fmt.Fprintf(p.stdout, "%s\n%s", name, report.Indented(text, 4)); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func openScenario(name string) (*scenario.Scenario, error) {
	file, data, err := scenarios.Open(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, unknownScenario(name)
		}
		return nil, err
	}
	return scenario.Parse(file, data)
}

// unknownScenario says what may have been meant.
func unknownScenario(name string) error {
	if strings.ContainsAny(name, `/\.`) {
		return fmt.Errorf("%s: there is no such file; 'peercache simulate list' lists the scenarios that need none", name)
	}
	var near []string
	for _, n := range append(scenarios.Names(), faultSearch) {
		if strings.Contains(n, name) || strings.Contains(name, n) || scenario.Distance(n, name) <= max(2, len(name)/4) {
			near = append(near, n)
		}
	}
	for _, file := range []string{name + ".yaml", name + ".yml"} {
		if _, err := os.Stat(file); err == nil {
			near = append(near, "the file "+file)
		}
	}
	if len(near) == 0 {
		return fmt.Errorf("no scenario %q; 'peercache simulate list' lists them", name)
	}
	return fmt.Errorf("no scenario %q; perhaps %s is meant", name, strings.Join(near, " or "))
}

// trial is what a simulate command has to do. Whatever can be wrong with what it was
// given is found before it is done.
type trial struct {
	p     *program
	flags *simulateFlags
	// name is the scenario's on the command line.
	name        string
	description string
	seeds       []uint64
	expand      func(seed uint64) (*scenario.Run, error)
	options     simulation.Options
	build       buildInfo
}

func (p *program) trial(name string, f *simulateFlags) (*trial, error) {
	t := &trial{p: p, flags: f, name: name, seeds: []uint64{f.seed}, build: readBuildInfo()}
	if f.nodes < 0 {
		return nil, fmt.Errorf("--nodes: %d is negative", f.nodes)
	}
	if err := t.source(); err != nil {
		return nil, err
	}
	var err error
	if f.seeds != "" {
		if t.seeds, err = parseSeeds(f.seeds); err != nil {
			return nil, err
		}
	}
	if t.options.Sharing, err = simulation.ParseSharing(f.sharing); err != nil {
		return nil, fmt.Errorf("--sharing: %w", err)
	}
	if f.memory != "" {
		if t.options.MemoryLimit, err = config.ParseSize(f.memory); err != nil {
			return nil, fmt.Errorf("--memory: %w", err)
		}
		if t.options.MemoryLimit == 0 {
			return nil, errors.New("--memory: no run does without any")
		}
	}
	if err := t.change(); err != nil {
		return nil, err
	}
	if _, err := t.expand(t.seeds[0]); err != nil {
		return nil, err
	}
	return t, writable(f.out)
}

// source finds what is to be run.
func (t *trial) source() error {
	if t.name == faultSearch {
		t.description = faultSearchText
		t.expand = func(seed uint64) (*scenario.Run, error) {
			return simulation.SearchConfig{Nodes: t.flags.nodes}.Run(seed), nil
		}
		return nil
	}
	s, err := openScenario(t.name)
	if err != nil {
		return err
	}
	t.description = s.Description
	t.expand = func(seed uint64) (*scenario.Run, error) { return s.Expand(seed, t.flags.nodes) }
	return nil
}

// change has runs be as the flags want them.
func (t *trial) change() error {
	if v := t.flags.verify; v != "" && v != "member" && v != "strict" {
		return fmt.Errorf("--verify: %q is neither member nor strict", v)
	}
	var faults []scenario.Fault
	if t.flags.faults != "" {
		var err error
		if faults, err = readFaults(t.flags.faults); err != nil {
			return err
		}
	}
	as := t.expand
	t.expand = func(seed uint64) (*scenario.Run, error) {
		run, err := as(seed)
		if err != nil {
			return nil, err
		}
		if t.flags.verify != "" {
			run.Verify = t.flags.verify
		}
		if t.flags.faults != "" {
			if err := faultsFit(t.flags.faults, faults, run); err != nil {
				return nil, err
			}
			run.Faults = faults
		}
		return run, nil
	}
	return nil
}

// parseSeeds reads FIRST..LAST.
func parseSeeds(s string) ([]uint64, error) {
	first, last, ok := strings.Cut(s, "..")
	a, err1 := strconv.ParseUint(strings.TrimSpace(first), 10, 64)
	b, err2 := strconv.ParseUint(strings.TrimSpace(last), 10, 64)
	switch {
	case !ok || err1 != nil || err2 != nil:
		return nil, fmt.Errorf("--seeds: %q is not FIRST..LAST, such as 1..100", s)
	case b < a:
		return nil, fmt.Errorf("--seeds: %d comes after %d", a, b)
	case b-a >= maxSeeds:
		return nil, fmt.Errorf("--seeds: more than %s seeds", report.Count(maxSeeds))
	}
	seeds := make([]uint64, 0, b-a+1)
	for s := a; ; s++ {
		if seeds = append(seeds, s); s == b {
			return seeds, nil
		}
	}
}

// writable makes a directory unless it is there, and finds out whether files can be
// written into it, before hours are spent on what to write.
func writable(dir string) error {
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	f, err := os.CreateTemp(dir, ".peercache-*")
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// command is the line that makes a run again, or all with seeds such as 1..9.
func (t *trial) command(which string) string {
	args := []string{"peercache", "simulate", quoted(t.name)}
	if t.flags.seeds != "" && which == t.flags.seeds {
		args = append(args, "--seeds", which)
	} else {
		args = append(args, "--seed", which)
	}
	if t.flags.nodes > 0 {
		args = append(args, "--nodes", strconv.Itoa(t.flags.nodes))
	}
	if t.flags.verify != "" {
		args = append(args, "--verify", t.flags.verify)
	}
	if t.flags.sharing != simulation.AutoShare.String() {
		args = append(args, "--sharing", t.flags.sharing)
	}
	if t.flags.faults != "" {
		args = append(args, "--faults", quoted(t.flags.faults))
	}
	return strings.Join(args, " ")
}

// quoted is a word as a shell takes it.
func quoted(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=+,@%", r)
	}
	if s != "" && !slices.ContainsFunc([]rune(s), func(r rune) bool { return !plain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func (t *trial) about(seed uint64) report.About {
	b := &t.build
	return report.About{Description: t.description, Version: b.Version, Commit: b.Commit, Modified: b.Modified, Go: b.Go, Platform: b.Platform,
		Command: t.command(strconv.FormatUint(seed, 10)), Sharing: t.options.Sharing}
}

// do makes the runs and tells of them.
func (t *trial) do(ctx context.Context) error {
	if t.flags.seeds != "" {
		return t.many(ctx)
	}
	return t.one(ctx)
}

// save writes a file into the directory of --out, or below it.
func (t *trial) save(name string, write func(*os.File) error) error {
	path := filepath.Join(t.flags.out, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	f, err := os.Create(path) //nolint:gosec // the user names the directory
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
