package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
)

// predictor asks the event simulator, each thing once.
type predictor struct {
	binary, dir string
	seeds       int

	mu   sync.Mutex
	done map[string]figures
	runs int // that were asked for: each has a file of its own
}

// sharing is exact: that is cheap in clusters of this size.
const sharing = "max-min"

// predict simulates a scenario, given as its text or as its name in the library, with
// each seed, and returns the mean.
func (p *predictor) predict(ctx context.Context, scenario string, args ...string) (figures, error) {
	key := strings.Join(append([]string{scenario}, args...), "\x00")
	p.mu.Lock()
	f, found := p.done[key]
	p.runs++
	file := filepath.Join(p.dir, fmt.Sprintf("case%d.yaml", p.runs))
	p.mu.Unlock()
	if found {
		return f, nil
	}
	name := scenario
	if strings.Contains(scenario, "\n") {
		if err := os.WriteFile(file, []byte(scenario), 0o600); err != nil {
			return f, err
		}
		name = file
		defer os.Remove(file)
	}
	var list []figures
	for seed := range p.seeds {
		one, err := p.simulate(ctx, append([]string{"simulate", name, "--json", "--sharing", sharing, "--seed", strconv.Itoa(seed + 1)}, args...))
		if err != nil {
			return f, err
		}
		list = append(list, one)
	}
	f = mean(list)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done[key] = f
	return f, nil
}

// simulate runs the simulator once. That a rule of the scenario was broken is for others
// to judge: exit code 1 with a document is an answer.
func (p *predictor) simulate(ctx context.Context, args []string) (f figures, err error) {
	cmd := exec.CommandContext(ctx, p.binary, args...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1 && out.Len() > 0) {
		return f, fmt.Errorf("peercache %s: %w\n%s", strings.Join(args, " "), err, said.Bytes())
	}
	var d document
	if err := json.Unmarshal(out.Bytes(), &d); err != nil {
		return f, fmt.Errorf("peercache %s: %w", strings.Join(args, " "), err)
	}
	return d.figures(d.UniqueBytes), nil
}

// fit looks for the parameters with which the cases for it are predicted best.
func (p *predictor) fit(ctx context.Context, measured []sample) (params, error) {
	var train []sample
	for _, s := range measured {
		if s.Train {
			train = append(train, s)
		}
	}
	if len(train) == 0 {
		say("none of the cases for fitting was measured: parameters are as they were")
		return start, nil
	}
	best, least, err := descend(start, func(q params) (float64, error) {
		costs := make([]float64, len(train))
		g, all := errgroup.WithContext(ctx)
		g.SetLimit(2)
		for i, s := range train {
			g.Go(func() error {
				predicted, err := p.predict(all, s.text(q))
				costs[i] = squares(predicted, s.real)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return 0, err
		}
		sum := 0.0
		for _, c := range costs {
			sum += c
		}
		return sum, nil
	})
	say("%d predictions; best: %s (sum of squares %.4g)", len(p.done), best, least)
	return best, err
}

// virtualLine is what real nodes on a simulated network say of a run.
type virtualLine struct {
	Driver          string    `json:"driver"`
	Scenario        string    `json:"scenario"`
	Nodes           int       `json:"nodes"`
	UniqueBytes     int64     `json:"unique_bytes"`
	Egress          int64     `json:"origin_egress_bytes"`
	Makespan        float64   `json:"makespan_seconds"`
	Failed          int       `json:"failed"`
	Completion      []float64 `json:"completion_seconds"`
	FirstByte       []float64 `json:"first_byte_seconds"`
	MessagesPerNode float64   `json:"messages_per_node"`
}

// decodeVirtual reads the lines that hold a run; what a test prints in front of one, and
// other lines, are passed over.
func decodeVirtual(data []byte) (lines []virtualLine, err error) {
	in := bufio.NewScanner(bytes.NewReader(data))
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		at := bytes.Index(in.Bytes(), []byte(`{"driver"`))
		if at < 0 {
			continue
		}
		var l virtualLine
		if err := json.Unmarshal(in.Bytes()[at:], &l); err != nil {
			return nil, err
		}
		lines = append(lines, l)
	}
	return lines, in.Err()
}

// figures of a line.
func (l *virtualLine) figures() figures {
	return figures{Makespan: l.Makespan, P50: nearest(l.Completion, 50), P99: nearest(l.Completion, 99), FirstByte: nearest(l.FirstByte, 50),
		Egress: l.Egress - l.UniqueBytes, Unserved: l.Failed, Messages: l.MessagesPerNode}
}

// virtual adds what real nodes did on a simulated network. Nothing is fitted for it: the
// scenarios of the library say all.
func (p *predictor) virtual(ctx context.Context, file string, t *table) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	lines, err := decodeVirtual(data)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if len(lines) == 0 {
		return fmt.Errorf("%s: no line of JSON with a driver in it", file)
	}
	type run struct {
		scenario string
		nodes    int
	}
	var order []run
	all := map[run][]figures{}
	for _, l := range lines {
		r := run{l.Scenario, l.Nodes}
		if all[r] == nil {
			order = append(order, r)
		}
		all[r] = append(all[r], l.figures())
	}
	for _, r := range order {
		predicted, err := p.predict(ctx, r.scenario, "--nodes", strconv.Itoa(r.nodes))
		if err != nil {
			return err
		}
		t.add(testCase{Name: fmt.Sprintf("simulated packets: %s, N=%d", r.scenario, r.nodes), nodes: r.nodes, Virtual: true}, mean(all[r]), 0, predicted)
	}
	return nil
}
