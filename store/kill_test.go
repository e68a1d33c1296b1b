package store

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

const childEnv = "PEERCACHE_STORE_TEST_CHILD"

// RunChild is the body of the processes that TestKill kills and BenchmarkResident
// measures. It reports whether this process is one, and how it went.
func RunChild() (child bool, err error) {
	arg := os.Getenv(childEnv)
	if arg == "" {
		return false, nil
	}
	dir, what, _ := strings.Cut(arg, "|")
	if seed, err := strconv.Atoi(what); err == nil {
		return true, storeForEver(dir, byte(seed))
	}
	return true, resident(dir, what)
}

// childContent is the i-th blob that a child stores.
func childContent(seed, i byte) content {
	c := newContent(digest.SHA256, 2<<20+int(i), seed)
	c.data[0] = i
	c.digest = digest.FromBytes(c.data)
	return c
}

// storeForEver stores one blob after the other and says so after each step, until
// it is killed or has no numbers left.
func storeForEver(dir string, seed byte) error {
	s, err := Open(dir, nil)
	if err != nil {
		return err
	}
	ctx := context.Background()
	for i := range byte(255) {
		c := childContent(seed, i)
		p, err := s.Partial(c.digest, c.layout, KindLayer)
		if err != nil {
			return err
		}
		for n := range c.layout.Count() {
			if err := p.WriteChunk(n, fullBuffer(c.chunk(n)), chunkindex.Attested, nil); err != nil {
				return err
			}
			fmt.Println("chunk", i, n)
		}
		if i%3 == 2 {
			continue // stays partial
		}
		if err := p.Complete(ctx); err != nil {
			return err
		}
		fmt.Println("blob", i, 0)
		if err := s.PutRecord("child", c.digest.String(), []byte{i}); err != nil {
			return err
		}
		fmt.Println("record", i, 0)
	}
	return errors.New("nobody killed it")
}

// TestKill kills a process with SIGKILL in the middle of its work, five times on
// one directory, and looks for everything that it had acknowledged: blobs, chunks
// of partial blobs, records. It also opens the directory while the child has it.
func TestKill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	for seed := range byte(5) {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), childEnv+"="+dir+"|"+strconv.Itoa(int(seed)))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var done [][3]int
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var what string
			var i, n int
			if _, err := fmt.Sscan(lines.Text(), &what, &i, &n); err != nil {
				t.Errorf("child says %q", lines.Text())
				break
			}
			done = append(done, [3]int{map[string]int{"chunk": 0, "blob": 1, "record": 2}[what], i, n})
			if len(done) == 5 {
				if s, err := Open(dir, nil); !errors.Is(err, ErrLocked) {
					t.Errorf("opened twice: %v, %v", s, err)
				} else if msg := err.Error(); !strings.Contains(msg, dir) || !strings.Contains(msg, fmt.Sprintf("pid %d", cmd.Process.Pid)) {
					t.Errorf("message names not directory and owner: %s", msg)
				}
			}
			if len(done) == 20+7*int(seed) { // goes on working until the signal
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait()
		if len(done) < 20 {
			t.Fatalf("the child came to step %d only", len(done))
		}
		checkAcknowledged(t, dir, seed, done)
	}
}

func checkAcknowledged(t *testing.T, dir string, seed byte, done [][3]int) {
	t.Helper()
	s, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	whole := map[int]bool{}
	for _, step := range done {
		whole[step[1]] = whole[step[1]] || step[0] == 1
	}
	for _, step := range done {
		c := childContent(seed, byte(step[1]))
		switch step[0] {
		case 0: // a chunk
			info, err := s.Stat(c.digest)
			if err != nil {
				t.Fatalf("blob %d: %v", step[1], err)
			}
			if info.Complete {
				continue // perhaps published just before the signal
			}
			if whole[step[1]] {
				t.Fatalf("blob %d was published and is partial", step[1])
			}
			p, err := s.Partial(c.digest, c.layout, KindLayer)
			if err != nil {
				t.Fatal(err)
			}
			if st := p.Chunk(step[2]); st.Level != chunkindex.Attested || st.Sum != fullBuffer(c.chunk(step[2])).Sum() {
				t.Errorf("chunk %d of blob %d is %s", step[2], step[1], st.Level)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		case 1: // a blob
			b, err := s.Open(c.digest)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(c.data))
			_, readErr := b.File().ReadAt(got, 0)
			if err := b.Prove(context.Background()); err != nil || readErr != nil || !bytes.Equal(got, c.data) {
				t.Errorf("blob %d: %v, %v", step[1], err, readErr)
			}
			b.Close()
		case 2:
			if v, err := s.Record("child", c.digest.String()); err != nil || len(v) != 1 || v[0] != byte(step[1]) {
				t.Errorf("record %d: %v, %v", step[1], v, err)
			}
		}
	}
}
