//go:build e2e && linux

package e2e

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// crowdImage is an image of two layers at the origin.
type crowdImage struct {
	manifest string
	blobs    []string // the config first
	size     int64    // of all of it
}

func (o *origin) addImage(seed uint64, layers ...int) (img crowdImage) {
	config := fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"seed":%d}`, seed)
	img.blobs = append(img.blobs, o.add("sha256", config))
	img.size = int64(len(config))
	var list string
	for i, size := range layers {
		d := o.add("sha256", contents(seed+uint64(i), size))
		img.blobs = append(img.blobs, d)
		img.size += int64(size)
		if i > 0 {
			list += ","
		}
		list += fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}`, d, size)
	}
	body := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",`+
		`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[%s]}`, img.blobs[0], len(config), list)
	img.manifest = o.addManifest("v1", "application/vnd.oci.image.manifest.v1+json", body)
	img.size += int64(len(body))
	return img
}

// pullImage gets an image as containerd does: the tag by HEAD, the manifest by its
// digest, then all blobs at once.
func (n *node) pullImage(t testing.TB, img crowdImage) error {
	head := fetch(t, time.Minute, "HEAD", n.at("app", "manifests/v1"), "Accept", "application/vnd.oci.image.manifest.v1+json")
	if head.status != http.StatusOK || head.header.Get("Docker-Content-Digest") != img.manifest {
		return fmt.Errorf("the tag: %v", head)
	}
	whole := func(path, digest string) error {
		r := fetch(t, time.Minute, "GET", n.at("app", path), "Accept", "application/vnd.oci.image.manifest.v1+json")
		if r.err != nil || r.status != http.StatusOK || digestOf(digest, r.body) != digest {
			return fmt.Errorf("%s: %v", path, r)
		}
		return nil
	}
	if err := whole("manifests/"+img.manifest, img.manifest); err != nil {
		return err
	}
	var g errgroup.Group
	for _, d := range img.blobs {
		g.Go(func() error { return whole("blobs/"+d, d) })
	}
	return g.Wait()
}

// TestCrowdCostsOneCopy is what the swarm is for: however many nodes want an
// image at once, or one after the other, the registry writes it once, and is
// asked once for the tag and once for the manifest.
func TestCrowdCostsOneCopy(t *testing.T) {
	for _, staggered := range []bool{false, true} {
		t.Run(fmt.Sprintf("staggered %t", staggered), func(t *testing.T) {
			t.Parallel()
			s := startSwarm(t, 4)
			img := s.origin.addImage(800, 30*mib, 10*mib)
			s.limit(16 * mib)
			total := func() (n int64) {
				for _, f := range s.fronts {
					n += f.seen(blobKind).bytes + f.seen(manifestKind).bytes
				}
				return n
			}
			var g errgroup.Group
			for i, n := range s.nodes {
				if staggered && i > 0 {
					eventually(t, 30*time.Second, "the origin has written a part", func() error {
						if got := total(); got < int64(i)*img.size/5 {
							return fmt.Errorf("%d of %d bytes", got, img.size)
						}
						return nil
					})
				}
				g.Go(func() error { return n.pullImage(t, img) })
			}
			if err := g.Wait(); err != nil {
				t.Fatal(err)
			}
			tags, manifests := 0, 0
			for _, f := range s.fronts {
				tags += f.asked("HEAD", "/manifests/v1") + f.asked("GET", "/manifests/v1")
				manifests += f.asked("GET", "/manifests/"+img.manifest)
			}
			got := total()
			t.Logf("egress: %.3f copies, %d requests for the tag, %d for the manifest", float64(got)/float64(img.size), tags, manifests)
			if got > img.size+img.size/50 {
				t.Errorf("the origin wrote %d bytes for an image of %d", got, img.size)
			}
			if tags != 1 || manifests != 1 {
				t.Errorf("%d requests for the tag and %d for the manifest, want one each", tags, manifests)
			}
		})
	}
}

// TestNodeDiesInMidPull: a node that is killed or hangs costs the others what it
// was reading from the origin, which is a stripe at most, and no client its pull.
func TestNodeDiesInMidPull(t *testing.T) {
	const size = 40 * mib
	for _, tt := range []struct {
		name   string
		signal syscall.Signal
		reader bool // or the coordinator
	}{
		{"the coordinator is killed", syscall.SIGKILL, false},
		{"a reader is killed", syscall.SIGKILL, true},
		{"a reader hangs", syscall.SIGSTOP, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startSwarm(t, 4)
			digest := s.origin.add("sha256", contents(810, size))
			victim := s.ranked(t, digest)[0]
			s.limit(8 * mib)
			p := s.pull(t, digest)
			s.awaitWritten(t, digest, size/4)
			if tt.reader {
				victim = s.reader(t)
			}
			if tt.signal == syscall.SIGKILL {
				s.nodes[victim].kill()
			} else {
				syscall.Kill(s.nodes[victim].cmd.Process.Pid, tt.signal)
				t.Cleanup(func() { syscall.Kill(s.nodes[victim].cmd.Process.Pid, syscall.SIGCONT) })
			}
			at := s.written(digest)
			if at >= size {
				t.Fatalf("too late: the origin had written %d bytes", at)
			}
			begin := time.Now()
			p.wantWhole(t, digest, victim)
			t.Logf("node %d was hit at %d bytes; the others were done %v later", victim, at, time.Since(begin).Round(time.Millisecond))
			s.wantEgress(t, digest, size, stripe)
			if tt.signal == syscall.SIGKILL {
				(<-p[victim]).wantNotWrong(t, "the dead node's answer", digest)
				return
			}
			syscall.Kill(s.nodes[victim].cmd.Process.Pid, syscall.SIGCONT)
			(<-p[victim]).wantWhole(t, "the blob at the node that hung", digest)
			s.nodes[victim].healthy(t)
			// Its connections are dead by then: as long as it knows nobody it
			// reads for itself.
			s.wantEgress(t, digest, size, size)
		})
	}
}

// TestLateAndRestarted: a node that comes when the others are in the middle, and
// one that is killed and started again, take what there is from the others.
func TestLateAndRestarted(t *testing.T) {
	t.Parallel()
	const size = 48 * mib
	s := startSwarm(t, 3)
	digest := s.origin.add("sha256", contents(820, size))
	s.limit(8 * mib)
	p := s.pull(t, digest)
	found := func(n *node, what string) {
		t.Helper()
		begin := time.Now()
		eventually(t, 10*time.Second, what+" has got something from a peer", func() error {
			if n.receivedFrom(t, "peer") == 0 {
				return fmt.Errorf("nothing")
			}
			return nil
		})
		t.Logf("%s got bytes from a peer within %v", what, time.Since(begin).Round(time.Millisecond))
	}
	s.awaitWritten(t, digest, size/4)
	s.limit(mib) // so that it isn't over before they are there
	late := s.join(t, nil)
	s.fronts[3].limit(mib)
	p[3] = late.pull(t, digest)
	found(late, "the late node")

	back := s.nodes[1]
	back.kill()
	(<-p[1]).wantNotWrong(t, "the killed node's answer", digest)
	back.start(t)
	if at := s.written(digest); at >= size {
		t.Fatalf("too late: the origin had written %d bytes", at)
	}
	p[1] = back.pull(t, digest)
	found(back, "the node that was started again")
	s.limit(0)

	p.wantWhole(t, digest)
	s.wantEgress(t, digest, size, stripe)
	if got := late.receivedFrom(t, "peer"); got < size/3 {
		t.Errorf("the late node had %d bytes from peers", got)
	}
}

// TestPrivateCrowd: those that the origin lets in share one copy; the others get
// the origin's own words, and nothing of it lies with them.
func TestPrivateCrowd(t *testing.T) {
	t.Parallel()
	s := &swarm{origin: startOrigin(t)}
	s.origin.guard()
	for _, pass := range []string{password, "", password, "wrong"} {
		s.join(t, withPassword(t, pass))
	}
	s.meet(t)
	img := s.origin.addImage(830, 20*mib, 2*mib)
	s.limit(16 * mib)
	var mu sync.Mutex
	refusals := map[string]reply{}
	var g errgroup.Group
	for i, n := range s.nodes {
		if i%2 == 0 {
			g.Go(func() error { return n.pullImage(t, img) })
			continue
		}
		for _, path := range []string{"manifests/v1", "manifests/" + img.manifest, "blobs/" + img.blobs[1]} {
			g.Go(func() error {
				r := fetch(t, time.Minute, "GET", n.at("app", path))
				mu.Lock()
				defer mu.Unlock()
				refusals[fmt.Sprintf("node %d, %s", i, path)] = r
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	// And again, now that their peers hold all of it.
	for i, n := range s.nodes {
		if i%2 == 1 {
			refusals[fmt.Sprintf("node %d, later", i)] = fetch(t, time.Minute, "GET", n.at("app", "blobs/"+img.blobs[1]))
		}
	}
	for what, r := range refusals {
		want := http.StatusUnauthorized
		if what[:6] == "node 3" {
			want = http.StatusForbidden
		}
		if r.err != nil || r.status != want || r.code() == "" {
			t.Errorf("%s: %v: %s, want the origin's %d", what, r, r.body, want)
		}
	}
	var got int64
	for _, f := range s.fronts {
		got += f.seen(blobKind).bytes + f.seen(manifestKind).bytes
	}
	t.Logf("egress: %.3f copies", float64(got)/float64(img.size))
	if got > img.size+img.size/50 {
		t.Errorf("the origin wrote %d bytes for an image of %d", got, img.size)
	}
	for i, n := range s.nodes {
		st := n.status(t)
		if i%2 == 0 {
			continue
		}
		if st.Blobs.Complete != 0 || st.Blobs.Partial != 0 || st.Received.Peer != 0 || st.Store.Bytes != 0 {
			t.Errorf("node %d, which the origin refuses, holds %+v in %d bytes and received %+v", i, st.Blobs, st.Store.Bytes, st.Received)
		}
	}
}

// TestThrottledCrowd: an origin that asks one node to leave it alone is left
// alone by all, and asked again when the time is over.
func TestThrottledCrowd(t *testing.T) {
	t.Parallel()
	const (
		size = 40 * mib
		wait = 3 * time.Second
	)
	s := startSwarm(t, 4)
	digest := s.origin.add("sha256", contents(840, size))
	var (
		mu    sync.Mutex
		until time.Time // set by the first request for another stripe than the first
		asked int       // before then
	)
	s.origin.play(func(w http.ResponseWriter, r *http.Request, content []byte, _ int) bool {
		mu.Lock()
		defer mu.Unlock()
		if until.IsZero() {
			if start, _, _ := rangeOf(r, len(content)); start < stripe {
				return false
			}
			until = time.Now().Add(wait)
		}
		left := time.Until(until)
		if left <= 0 {
			return false
		}
		asked++
		w.Header().Set("Retry-After", strconv.Itoa(int((left+time.Second-1)/time.Second)))
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	s.limit(16 * mib)
	p := s.pull(t, digest)
	p.wantWhole(t, digest)
	mu.Lock()
	defer mu.Unlock()
	t.Logf("%d requests met a 429", asked)
	switch {
	case asked == 0:
		t.Error("nobody was asked to wait: this shows nothing")
	case asked > len(s.nodes):
		// Each may have had one on its way.
		t.Errorf("%d requests came while the origin wanted none", asked)
	}
	s.wantEgress(t, digest, size, size/50)
}

// TestSlowHolderIsFair: a node that may send little is busy for those that ask
// too much of it, and serves two that want the same alike.
func TestSlowHolderIsFair(t *testing.T) {
	t.Parallel()
	const size = 24 * mib
	o := startOrigin(t)
	digest := o.add("sha256", contents(850, size))
	holder := startNode(t, o.url(), nil, "--limit-upload", "8MiB")
	fetch(t, time.Minute, "GET", holder.at("app", "blobs/"+digest)).wantWhole(t, "the blob at the holder", digest)
	one := startNode(t, o.url(), []*node{holder})
	two := startNode(t, o.url(), []*node{holder, one})
	o.srv.Close()
	first, second := one.pull(t, digest), two.pull(t, digest)
	var other *node
	select {
	case r := <-first:
		r.wantWhole(t, "the blob at the first node", digest)
		first, other = nil, two
	case r := <-second:
		r.wantWhole(t, "the blob at the second node", digest)
		second, other = nil, one
	}
	if got := other.receivedFrom(t, "peer"); got < size/2 {
		t.Errorf("when one had all, the other had %d bytes of %d", got, size)
	}
	for _, rest := range []<-chan reply{first, second} {
		if rest != nil {
			(<-rest).wantWhole(t, "the blob at the other node", digest)
		}
	}
	sent := holder.metric(t, "peercache_p2p_range_bytes_total", `direction="out"`)
	t.Logf("the holder sent %.2f copies, and was busy %v times", sent/size, holder.metric(t, "peercache_fetcher_uploads_refused_total"))
	if sent > 1.5*size {
		t.Errorf("the holder sent %.0f bytes of a blob of %d to two who could share it", sent, size)
	}
}
