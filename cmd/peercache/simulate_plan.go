package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/peercache/peercache/cmd/peercache/internal/config"
	"github.com/peercache/peercache/simulation"
	"github.com/peercache/peercache/simulation/plan"
	"github.com/peercache/peercache/simulation/report"
	"github.com/peercache/peercache/simulation/scenario"
)

const (
	// What the format of scenarios takes.
	maxPlanNodes  = 100_000
	maxPlanLayers = 1000
	maxPlanImages = 100
	minPlanRate   = 1000
	maxPlanRate   = 125_000_000_000
	maxPlanImage  = 100 << 40
)

// planFlags are the flags of simulate plan.
type planFlags struct {
	nodes, layers, zones             int
	images                           []string
	link, up, origin, limit, between string
	paid, json                       bool
	seed                             uint64
	timeout                          time.Duration
	save                             string
}

func (p *program) simulatePlanCommand() *cobra.Command {
	var f planFlags
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "What does a rollout cost the registry, and how long does it take?",
		Long: `Answers how long it takes until all nodes have pulled some images at once, and
what that asks of the registry: without Peercache, where each node asks for
itself, and with it. The latter is simulated, node by node, unless that
would take longer than --timeout; then the answer is the best that is possible, and
marked as such. Both are shown beside what no schedule beats. Ctrl-C ends the
simulation; the answer is the best that is possible then too, and says how far it
came (exit code 130).`,
		Example: `  peercache simulate plan --nodes 500 --image 10GiB --link 1gbit --origin-link 10gbit
  peercache simulate plan --nodes 200 --image 2GiB,500MiB --registry-limit "100 manifests/6h"
  peercache simulate plan --nodes 300 --image 5GiB --zones 3 --paid`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := f.question()
			if err != nil {
				return usageError(err)
			}
			text := planScenario(q, f.timeLimit(q))
			run, err := planRun(text, f.seed)
			if err != nil {
				return usageError(err)
			}
			q.Overhead = run.Costs.Overhead
			if f.save != "" {
				if err := os.WriteFile(f.save, []byte(text), 0o666); err != nil {
					return usageError(fmt.Errorf("--save: %w", err))
				}
			}
			return p.plan(cmd.Context(), &f, q, run)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&f.nodes, "nodes", 100, "how many nodes pull")
	flags.StringSliceVar(&f.images, "image", []string{"1GiB"}, "`SIZE` of the image; several, with commas, are pulled together")
	flags.IntVar(&f.layers, "layers", 10, "how many layers an image has")
	flags.StringVar(&f.link, "link", "1gbit", "`RATE` of a node's link")
	flags.StringVar(&f.up, "up", "", "`RATE` at which a node sends, where it differs")
	flags.StringVar(&f.origin, "origin-link", "1gbit", "`RATE` of the registry's link to all nodes together")
	flags.StringVar(&f.limit, "registry-limit", "", "rate `LIMIT` such as '100 manifests/6h', '5000 requests/1h' or '100 manifests/6h per node'")
	flags.IntVar(&f.zones, "zones", 1, "how many zones the nodes are in")
	flags.StringVar(&f.between, "zone-link", "", "`RATE` of a zone's link to the others and the registry; none by default")
	flags.BoolVar(&f.paid, "paid", false, "what crosses zones is paid for")
	flags.Uint64Var(&f.seed, "seed", 1, "of the simulation")
	flags.DurationVar(&f.timeout, "timeout", 5*time.Minute, "how long the simulation may take; 0: do not simulate")
	flags.StringVar(&f.save, "save", "", "write the scenario into `FILE`, to go on with peercache simulate")
	flags.BoolVar(&f.json, "json", false, "print JSON")
	return cmd
}

// question reads the flags.
func (f *planFlags) question() (*plan.Question, error) {
	q := &plan.Question{Nodes: f.nodes, Layers: f.layers, Zones: f.zones, Paid: f.paid}
	between := func(name string, v, most int) error {
		if v < 1 || v > most {
			return fmt.Errorf("--%s: %d is not from 1 to %d", name, v, most)
		}
		return nil
	}
	rate := func(name, text string, into *int64) error {
		n, err := config.ParseRate(text)
		switch {
		case err != nil:
			return fmt.Errorf("--%s: %w", name, err)
		case text != "" && (n < minPlanRate || n > maxPlanRate):
			return fmt.Errorf("--%s: %s is not from 8kbit to 1tbit", name, text)
		}
		*into = n
		return nil
	}
	err := errors.Join(between("nodes", f.nodes, maxPlanNodes), between("layers", f.layers, maxPlanLayers), between("zones", f.zones, max(f.nodes, 1)),
		rate("link", f.link, &q.Down), rate("origin-link", f.origin, &q.Origin), rate("zone-link", f.between, &q.ZoneLink), rate("up", f.up, &q.Up))
	if q.Up == 0 {
		q.Up = q.Down
	}
	switch {
	case err != nil:
		return nil, err
	case q.Down == 0 || q.Origin == 0:
		return nil, errors.New("--link and --origin-link: a rate is needed")
	case len(f.images) == 0 || len(f.images) > maxPlanImages:
		return nil, fmt.Errorf("--image: from 1 to %d are possible", maxPlanImages)
	case f.timeout < 0:
		return nil, fmt.Errorf("--timeout: %s is negative", f.timeout)
	}
	for _, text := range f.images {
		n, err := config.ParseSize(text)
		switch {
		case err != nil:
			return nil, fmt.Errorf("--image: %w", err)
		case n < int64(f.layers):
			return nil, fmt.Errorf("--image: %s does not fill %d layers", text, f.layers)
		case n > maxPlanImage:
			return nil, fmt.Errorf("--image: %s is more than %s", text, config.FormatSize(maxPlanImage))
		}
		q.Images = append(q.Images, n)
	}
	if q.Limit, err = parseLimit(f.limit); err != nil {
		return nil, err
	}
	return q, nil
}

var limitText = regexp.MustCompile(`^\s*(\d+)\s+(manifests?|requests?)\s*(?:/|per|in|every)\s*(\S+?)(\s+(?:per|a|each) node)?\s*$`)

// parseLimit reads a rate limit of a registry.
func parseLimit(text string) (plan.Limit, error) {
	if text == "" {
		return plan.Limit{}, nil
	}
	fail := fmt.Errorf("--registry-limit: %q is not a limit, such as '100 manifests/6h' or '5000 requests/1h per node'", text)
	m := limitText.FindStringSubmatch(text)
	if m == nil {
		return plan.Limit{}, fail
	}
	n, err := strconv.Atoi(m[1])
	window, werr := time.ParseDuration(m[3])
	if err != nil || werr != nil || n < 1 || window < time.Second {
		return plan.Limit{}, fail
	}
	return plan.Limit{Requests: n, Window: window, Manifests: strings.HasPrefix(m[2], "manifest"), PerNode: m[4] != ""}, nil
}

// timeLimit is when a simulation is given up in virtual time: late, and not beyond what
// the format of scenarios takes.
func (f *planFlags) timeLimit(q *plan.Question) time.Duration {
	const most = 720 * time.Hour
	if t := q.With().Time; t < most/10 {
		return max(10*t, time.Hour).Round(time.Second)
	}
	return most
}

// planScenario writes the question as a scenario.
func planScenario(q *plan.Question, limit time.Duration) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("name: plan")
	line("description: All nodes pull all images at once. How long does it take, and what does it ask of the registry?")
	line("topology:\n  nodes: %d", q.Nodes)
	if q.Up == q.Down {
		line("  link: %s", scenario.RateText(q.Down))
	} else {
		line("  down: %s\n  up: %s", scenario.RateText(q.Down), scenario.RateText(q.Up))
	}
	if q.Zones > 1 {
		line("  zones: %d", q.Zones)
	}
	if q.ZoneLink > 0 {
		line("  uplink: %s", scenario.RateText(q.ZoneLink))
	}
	if q.Paid {
		line("  paid: true")
	}
	line("origin:\n  link: %s", scenario.RateText(q.Origin))
	if l := q.Limit; l.Requests > 0 {
		of, per := "all", "address"
		if l.Manifests {
			of = "manifests"
		}
		if l.PerNode {
			per = "node"
		}
		line("  limits:\n    - {requests: %d, window: %s, of: %s, per: %s}", l.Requests, l.Window, of, per)
	}
	line("images:")
	var names []string
	for i, n := range q.Images {
		name := fmt.Sprintf("image-%d", i+1)
		names = append(names, name)
		line("  - name: %s\n    layers: {count: %d, size: %s}", name, q.Layers, scenario.SizeText(n))
	}
	line("workload:")
	for _, name := range names {
		line("  - {kind: flash-crowd, image: %s, retries: 1000}", name)
	}
	line("limits:\n  time: %s", limit)
	return b.String()
}

func planRun(text string, seed uint64) (*scenario.Run, error) {
	s, err := scenario.Parse("plan.yaml", []byte(text))
	if err != nil {
		return nil, err
	}
	return s.Expand(seed, 0)
}

var (
	errTooLong         = errors.New("it would have taken too long")
	errPlanInterrupted = &exitError{exitInterrupted, errors.New("interrupted; the answer is the best that is possible, not a simulation")}
)

// plan answers a question.
func (p *program) plan(ctx context.Context, f *planFlags, q *plan.Question, run *scenario.Run) error {
	r, note, err := p.planSimulation(ctx, f, run)
	if err != nil {
		return err
	}
	answer := report.NewPlan(q, r, note, f.command())
	if f.json {
		err = answer.JSON(p.stdout)
	} else {
		err = answer.Table(p.stdout)
	}
	switch {
	case err != nil:
		return err
	case r == nil && ctx.Err() != nil:
		return errPlanInterrupted
	case len(answer.Problems) > 0:
		return errBroken
	}
	return nil
}

// planSimulation simulates a plan; nil and the reason if that cannot be done in time or
// in memory, or is interrupted.
func (p *program) planSimulation(ctx context.Context, f *planFlags, run *scenario.Run) (*report.Report, string, error) {
	if f.timeout == 0 {
		return nil, "none was asked for", nil
	}
	progress := p.newProgress(f.json)
	defer progress.end()
	limited, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(f.timeout, func() { cancel(errTooLong) })
	defer timer.Stop()
	opt := simulation.Options{Progress: func(at simulation.Progress) {
		// What surely takes much longer than it may is not waited for; before a part of
		// the bytes is there nothing is sure.
		spent := time.Duration(at.WallSeconds * 1e9)
		if at.Received > at.Wanted/20 && at.EstimatedLeft > 2*(f.timeout-spent) {
			cancel(errTooLong)
		}
		progress.run(at)
	}}
	res, err := simulation.Simulate(limited, run, opt)
	var memory *simulation.MemoryError
	switch {
	case errors.As(err, &memory):
		return nil, fmt.Sprintf("that would have taken about %s of memory, and %s are free", config.FormatSize(memory.Need), config.FormatSize(memory.Limit)), nil
	case err != nil:
		return nil, "", err
	case !res.Partial || len(res.Completion) == len(run.Pulls): // or ended while nodes came to rest
		return report.New(run, res, report.About{}), "", nil
	case ctx.Err() != nil:
		end := res.Series[len(res.Series)-1]
		return nil, fmt.Sprintf("interrupted %s into the rollout, when %s of %s pulls were done and the registry had sent %s",
			report.Duration(end.At), report.Count(end.Done), report.Count(len(run.Pulls)), report.Size(res.OriginBytes)), nil
	}
	return nil, fmt.Sprintf("that would have taken longer than --timeout %s", f.timeout), nil
}

// command is the line that asks again.
func (f *planFlags) command() string {
	args := []string{"peercache simulate plan --nodes", strconv.Itoa(f.nodes), "--image", quoted(strings.Join(f.images, ",")), "--layers", strconv.Itoa(f.layers),
		"--link", quoted(f.link), "--origin-link", quoted(f.origin)}
	add := func(name, value string) {
		if value != "" {
			args = append(args, "--"+name, quoted(value))
		}
	}
	add("up", f.up)
	add("registry-limit", f.limit)
	if f.zones > 1 {
		add("zones", strconv.Itoa(f.zones))
	}
	add("zone-link", f.between)
	if f.paid {
		args = append(args, "--paid")
	}
	add("seed", strconv.FormatUint(f.seed, 10))
	return strings.Join(args, " ")
}
