// Command validate says how far the event simulator's predictions are from what
// real processes do. It has both carry out the same scenarios: real processes in network
// namespaces by bench/flashcrowd, several times each, and `peercache simulate`. The few
// parameters of the model that nobody can look up are fitted on one half of the
// scenarios; what counts is how far it is off on the other half.
//
//	go run ./bench/validate -out DIR           measures (10 minutes, root), fits, writes DIR/residuals.md
//	go run ./bench/validate -out DIR -fit      fits again what was measured there
//	go run ./bench/validate -out DIR -only N=8 measures those cases only whose name has that in it
//
// With -virtual FILE it takes what real nodes did on a simulated network: a line of
// JSON each, as TestVirtualScenario in cmd/peercache prints it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

var opts struct {
	out, only, virtual, peercache, flashcrowd string
	fit                                       bool
	repeat, seeds                             int
}

func init() {
	flag.StringVar(&opts.out, "out", "", "`DIR` for what is measured and for the table; it is made")
	flag.BoolVar(&opts.fit, "fit", false, "measure nothing: take what is in -out")
	flag.StringVar(&opts.only, "only", "", "measure only cases with this `TEXT` in their name, and keep what -out has of the others")
	flag.StringVar(&opts.virtual, "virtual", "", "`FILE` with lines of JSON of real nodes on a simulated network")
	flag.StringVar(&opts.peercache, "peercache", "", "`FILE` of the binary (default: built from ./cmd/peercache)")
	flag.StringVar(&opts.flashcrowd, "flashcrowd", "", "`FILE` of the binary (default: built from ./bench/flashcrowd)")
	flag.IntVar(&opts.repeat, "repeat", 2, "real runs of each case")
	flag.IntVar(&opts.seeds, "seeds", 3, "simulated runs of each case")
}

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "validate:", err)
		os.Exit(1)
	}
}

var started = time.Now()

// say tells on standard error what goes on.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(started).Seconds(), fmt.Sprintf(format, args...))
}

func run(ctx context.Context) error {
	switch {
	case flag.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	case opts.out == "":
		return errors.New("-out: where to?")
	case opts.repeat < 1 || opts.seeds < 1:
		return errors.New("-repeat, -seeds: at least 1")
	case opts.fit && opts.only != "":
		return errors.New("-fit measures nothing, so that -only has no meaning beside it")
	}
	chosen, err := choose(opts.only)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(opts.out, 0o755); err != nil {
		return err
	}
	bin, err := os.MkdirTemp("", "peercache-validate-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(bin)
	for _, b := range []struct {
		file *string
		pkg  string
	}{{&opts.peercache, "./cmd/peercache"}, {&opts.flashcrowd, "./bench/flashcrowd"}} {
		if *b.file != "" || opts.fit && b.pkg == "./bench/flashcrowd" {
			continue
		}
		*b.file = filepath.Join(bin, filepath.Base(b.pkg))
		if out, err := exec.CommandContext(ctx, "go", "build", "-o", *b.file, b.pkg).CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", b.pkg, err, out)
		}
	}
	if !opts.fit {
		for i := range chosen {
			if err := chosen[i].measure(ctx, opts.out); err != nil {
				return err
			}
		}
	}
	all := cases()
	var measured []sample
	for i := range all {
		s, err := all[i].load(opts.out)
		if errors.Is(err, os.ErrNotExist) {
			say("%s: not measured", all[i].Name)
			continue
		}
		if err != nil {
			return err
		}
		measured = append(measured, s)
	}
	if len(measured) == 0 {
		return errors.New("nothing was measured")
	}
	p := &predictor{binary: opts.peercache, dir: bin, seeds: opts.seeds, done: map[string]figures{}}
	best, err := p.fit(ctx, measured)
	if err != nil {
		return err
	}
	t := &table{params: best, repeat: measured[0].runs, seeds: opts.seeds}
	for _, s := range measured {
		predicted, err := p.predict(ctx, s.text(best))
		if err != nil {
			return err
		}
		t.add(s.testCase, s.real, s.spread, predicted)
	}
	if opts.virtual != "" {
		if err := p.virtual(ctx, opts.virtual, t); err != nil {
			return err
		}
	}
	text := t.String()
	fmt.Print(text)
	return os.WriteFile(filepath.Join(opts.out, "residuals.md"), []byte(text), 0o644)
}
