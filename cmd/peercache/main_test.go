package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/peercache/peercache/cmd/peercache/internal/admin"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"peercache": main})
}

// TestScripts runs the command line as people do: testdata/script/*.txtar. Each
// script has an origin of its own at $ORIGIN that holds the blob $BLOB in the
// repository "stuff", and these commands:
//
//	waitfor GLOB            waits until a file matches
//	printed FILE REGEXP     waits until what is in a file matches
//	addresses FILE PREFIX   waits for a node's --address-file, and sets
//	                        $PREFIX_PROXY, $PREFIX_ADMIN and $PREFIX_PEER
//	peers ADMIN N           waits until a node has N peers
//	told ADMIN REGEXP       waits until a node's status for people matches
//	fetch [-range RANGE] URL [DIGEST]
//	                        prints status, Content-Range and body; with a digest,
//	                        checks the body instead
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			origin := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
			e.Defer(origin.Close)
			blob := make([]byte, 3<<20+17)
			rand.NewChaCha8([32]byte{1}).Read(blob)
			d := digest.FromBytes(blob)
			resp, err := http.Post(origin.URL+"/v2/stuff/blobs/uploads/?digest="+d.String(), "application/octet-stream", bytes.NewReader(blob))
			if err != nil {
				return err
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusCreated {
				return fmt.Errorf("pushing to the origin: %s", resp.Status)
			}
			e.Setenv("ORIGIN", origin.URL)
			e.Setenv("BLOB", d.String())
			e.Setenv("SIZE", fmt.Sprint(len(blob)))
			// What a node needs so that scripts can run beside one another.
			e.Setenv("PEERCACHE_LISTEN", "127.0.0.1:0")
			e.Setenv("PEERCACHE_ADMIN", "127.0.0.1:0")
			e.Setenv("PEERCACHE_P2P_LISTEN", "/ip4/127.0.0.1/tcp/0")
			e.Setenv("PEERCACHE_MIN_FREE", "0")
			e.Setenv("PEERCACHE_MAX_SIZE", "64MiB")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"waitfor": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) != 1 {
					ts.Fatalf("usage: waitfor GLOB")
				}
				waitFor(ts, args[0])
			},
			"printed": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) != 2 {
					ts.Fatalf("usage: printed FILE REGEXP")
				}
				want := regexp.MustCompile("(?m)" + args[1])
				waitFor(ts, args[0])
				eventually(ts, args[1]+" in "+args[0], func() bool { return want.MatchString(ts.ReadFile(args[0])) })
			},
			"addresses": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) != 2 {
					ts.Fatalf("usage: addresses FILE PREFIX")
				}
				var a addresses
				ts.Check(json.Unmarshal([]byte(ts.ReadFile(waitFor(ts, args[0]))), &a))
				ts.Setenv(args[1]+"_PROXY", a.Proxy)
				ts.Setenv(args[1]+"_ADMIN", a.Admin)
				ts.Setenv(args[1]+"_PEER", a.Addresses[0])
			},
			"peers": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) != 2 {
					ts.Fatalf("usage: peers ADMIN N")
				}
				want, err := strconv.Atoi(args[1])
				ts.Check(err)
				eventually(ts, args[1]+" peers", func() bool {
					s, _, err := admin.Fetch(context.Background(), args[0])
					ts.Check(err)
					return len(s.Peers) == want
				})
			},
			"told": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) != 2 {
					ts.Fatalf("usage: told ADMIN REGEXP")
				}
				want := regexp.MustCompile("(?m)" + args[1])
				var last strings.Builder
				defer func() { ts.Logf("%s", last.String()) }()
				eventually(ts, args[1]+" in the status", func() bool {
					s, _, err := admin.Fetch(context.Background(), args[0])
					ts.Check(err)
					last.Reset()
					ts.Check(s.Render(&last))
					return want.MatchString(last.String())
				})
			},
			"fetch": func(ts *testscript.TestScript, neg bool, args []string) {
				ranges := ""
				if len(args) > 2 && args[0] == "-range" {
					ranges, args = args[1], args[2:]
				}
				if neg || len(args) < 1 || len(args) > 2 {
					ts.Fatalf("usage: fetch [-range RANGE] URL [DIGEST]")
				}
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, args[0], nil)
				ts.Check(err)
				if ranges != "" {
					req.Header.Set("Range", ranges)
				}
				resp, err := http.DefaultClient.Do(req)
				ts.Check(err)
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				ts.Check(err)
				fmt.Fprintln(ts.Stdout(), resp.Status)
				if r := resp.Header.Get("Content-Range"); r != "" {
					fmt.Fprintln(ts.Stdout(), "Content-Range:", r)
				}
				if len(args) == 1 {
					ts.Stdout().Write(body)
				} else if got := digest.FromBytes(body).String(); got != args[1] {
					ts.Fatalf("%s: %d bytes that hash to %s", args[0], len(body), got)
				}
			},
		},
	})
}

// waitFor returns the first file that matches, once there is one.
func waitFor(ts *testscript.TestScript, glob string) (found string) {
	eventually(ts, glob, func() bool {
		files, err := filepath.Glob(ts.MkAbs(glob))
		ts.Check(err)
		if len(files) > 0 {
			found = files[0]
		}
		return found != ""
	})
	return found
}

// eventually waits until ok.
func eventually(ts *testscript.TestScript, what string, ok func() bool) {
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			ts.Fatalf("no %s after 30 s", what)
		}
		<-tick.C
	}
}
