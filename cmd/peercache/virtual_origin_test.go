package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/quic-go/quic-go"

	"github.com/peercache/peercache/registryproxy/origin/origintest"
	"github.com/peercache/peercache/simulation/scenario"
)

const (
	virtualRegistry   = "registry.test"
	virtualRepository = "team/app"
)

// virtualOrigin is the registry of a run on its host of the network: HTTP, as the
// production client speaks it, over a QUIC stream a connection. The limits and faults
// are those of the run.
type virtualOrigin struct {
	run      *scenario.Run
	host     *virtualHost
	registry *origintest.Origin
	images   []virtualImage
	begun    time.Time // of the run's own time, set by begin

	listener *quic.Listener
	quic     *quic.Transport
	server   *http.Server
	done     chan struct{}

	mu       sync.Mutex
	random   *mathrand.Rand
	serving  int
	faults   []*scenario.Fault // that last
	windows  map[window]int    // requests answered
	requests int64
	manifest int64 // requests for manifests
}

type virtualImage struct {
	manifest digest.Digest
	layers   []v1.Descriptor
}

// window is one window of time of one rate limit, for one node or for all.
type window struct{ limit, node, number int }

// newVirtualOrigin makes the run's content, unless the run is one that is refused. It is
// called outside of a bubble.
func newVirtualOrigin(run *scenario.Run) (*virtualOrigin, error) {
	if err := virtualRefuses(run); err != nil {
		return nil, err
	}
	o := &virtualOrigin{
		run: run, registry: origintest.New(), windows: map[window]int{},
		random: mathrand.New(mathrand.NewPCG(run.Seed, 2)),
	}
	layers := make([]v1.Descriptor, len(run.Blobs))
	for i, b := range run.Blobs {
		if b.Manifest {
			continue
		}
		data := make([]byte, b.Size)
		seed := sha256.Sum256(binary.LittleEndian.AppendUint64([]byte(b.Name), run.Seed))
		_, _ = mathrand.NewChaCha8(seed).Read(data)
		layers[i] = v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: o.registry.Blob(data), Size: b.Size}
	}
	for i, image := range run.Images {
		m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Config: v1.DescriptorEmptyJSON}
		for _, l := range image.Layers {
			m.Layers = append(m.Layers, layers[l])
		}
		body, err := manifestOf(m, run.Blobs[image.Manifest].Size)
		if err != nil {
			return nil, fmt.Errorf("image %d: %w", i, err)
		}
		d := o.registry.Manifest(virtualRepository, v1.MediaTypeImageManifest, body, image.Name)
		o.images = append(o.images, virtualImage{d, m.Layers})
	}
	return o, nil
}

// manifestOf is a manifest as long as the run says, if it is not longer anyway.
func manifestOf(m v1.Manifest, size int64) ([]byte, error) {
	body, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	const padding = `"annotations":{"padding":""},`
	if short := int(size) - len(body) - len(padding); short > 0 {
		m.Annotations = map[string]string{"padding": strings.Repeat(" ", short)}
		return json.Marshal(m)
	}
	return body, nil
}

// wanted is what all images hold together, each blob once.
func (o *virtualOrigin) wanted() int64 {
	var n int64
	seen := map[int]bool{}
	for _, p := range o.run.Pulls {
		image := o.run.Images[p.Image]
		for _, b := range append(slices.Clone(image.Layers), image.Manifest) {
			if !seen[b] {
				seen[b] = true
				n += o.run.Blobs[b].Size
			}
		}
	}
	return n
}

// serve starts the registry on a host.
func (o *virtualOrigin) serve(h *virtualHost) error {
	o.host = h
	cert, err := selfSigned()
	if err != nil {
		return err
	}
	o.quic = &quic.Transport{Conn: h.endpoint(registryPort)}
	o.listener, err = o.quic.Listen(
		&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{originProtocol}},
		&quic.Config{MaxIdleTimeout: time.Minute})
	if err != nil {
		return err
	}
	l := &streamListener{origin: o, conns: make(chan net.Conn)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.work.Go(l.accept)
	o.server, o.done = &http.Server{Handler: o}, make(chan struct{})
	go func() {
		defer close(o.done)
		_ = o.server.Serve(l)
	}()
	return nil
}

func (o *virtualOrigin) close() error {
	err := o.server.Close()
	<-o.done
	return errors.Join(err, o.listener.Close(), o.quic.Close(), o.quic.Conn.Close())
}

func selfSigned() (tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * 365 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, err
}

// streamListener gives out the first stream of each QUIC connection.
type streamListener struct {
	origin *virtualOrigin
	conns  chan net.Conn
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup
}

func (l *streamListener) accept() {
	for {
		conn, err := l.origin.listener.Accept(l.ctx)
		if err != nil {
			return
		}
		if l.origin.lasting(scenario.OriginOutage, hostOf(conn.RemoteAddr())-firstNode) != nil {
			_ = conn.CloseWithError(1, "refused")
			continue
		}
		l.work.Go(func() {
			s, err := conn.AcceptStream(l.ctx)
			if err != nil {
				_ = conn.CloseWithError(1, "")
				return
			}
			c := &streamConn{s, conn, l.origin.host}
			l.origin.host.opened(c)
			select {
			case l.conns <- c:
			case <-l.ctx.Done():
				c.Close()
			}
		})
	}
}

func (l *streamListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

func (l *streamListener) Close() error {
	l.cancel()
	l.work.Wait()
	return nil
}

func (l *streamListener) Addr() net.Addr { return l.origin.listener.Addr() }

// set says which faults last from now on. An outage breaks what is open.
func (o *virtualOrigin) set(faults []*scenario.Fault) {
	o.mu.Lock()
	o.faults = faults
	o.mu.Unlock()
	for _, end := range o.host.ends(func(remote int) bool { return o.lasting(scenario.OriginOutage, remote-firstNode) != nil }) {
		end.abort()
	}
}

// lasting is the fault of a kind that a node meets now, if there is one.
func (o *virtualOrigin) lasting(kind scenario.FaultKind, node int) *scenario.Fault {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, f := range o.faults {
		if f.Kind == kind && (len(f.Nodes) == 0 || slices.Contains(f.Nodes, node)) {
			return f
		}
	}
	return nil
}

// ServeHTTP answers as the run says.
func (o *virtualOrigin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	node := -1
	if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		ip := a.Addr().Unmap().As4()
		node = int(ip[2])<<8 | int(ip[3]) - firstNode
	}
	manifest := strings.Contains(r.URL.Path, "/manifests/")
	o.mu.Lock()
	o.requests++
	if manifest {
		o.manifest++
	}
	o.mu.Unlock()
	if d := o.run.Origin.Delay; d > 0 {
		time.Sleep(d)
	}
	if fault := o.fault(node); fault != nil {
		fault(w, r, o.registry)
		return
	}
	if wait := o.limited(node, manifest); wait > 0 {
		origintest.Status(http.StatusTooManyRequests, fmt.Sprintf("Retry-After: %d", (wait+time.Second-1)/time.Second))(w, r, o.registry)
		return
	}
	o.mu.Lock()
	o.serving++
	busy := o.run.Origin.Connections > 0 && o.serving > o.run.Origin.Connections
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		o.serving--
		o.mu.Unlock()
	}()
	if busy {
		origintest.Status(http.StatusServiceUnavailable)(w, r, o.registry)
		return
	}
	if o.run.Origin.Connection > 0 {
		w = &slowWriter{w, o.run.Origin.Connection}
	}
	o.registry.ServeHTTP(w, r)
}

// fault is what goes wrong with a node's request, if something does.
func (o *virtualOrigin) fault(node int) origintest.Fault {
	seconds := func(d time.Duration) string { return fmt.Sprintf("Retry-After: %d", (d+time.Second-1)/time.Second) }
	if f := o.lasting(scenario.OriginOutage, node); f != nil {
		return origintest.Drop
	}
	if f := o.lasting(scenario.OriginStall, node); f != nil {
		return origintest.Hang
	}
	if f := o.lasting(scenario.OriginThrottle, node); f != nil {
		return origintest.Status(http.StatusTooManyRequests, seconds(f.Delay))
	}
	if f := o.lasting(scenario.OriginError, node); f != nil {
		return origintest.Status(f.Status)
	}
	if f := o.lasting(scenario.ExpiredToken, node); f != nil {
		return origintest.Status(http.StatusUnauthorized)
	}
	if f := o.lasting(scenario.OriginReset, node); f != nil {
		o.mu.Lock()
		hit := o.random.IntN(1e6) < f.Part
		o.mu.Unlock()
		if hit {
			return resetHalfway
		}
	}
	return nil
}

func resetHalfway(w http.ResponseWriter, r *http.Request, next http.Handler) {
	var first, last int64
	n := 1 << 10
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); err == nil {
		n = int(last-first+1) / 2
	}
	origintest.Reset(n)(w, r, next)
}

// limited counts a request for the rate limits, and says how long to wait where one
// has no room.
func (o *virtualOrigin) limited(node int, manifest bool) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Since(o.begun)
	var counts []window
	for i, l := range o.run.Origin.Limits {
		if l.Manifests && !manifest {
			continue
		}
		w := window{limit: i, node: -1, number: int(now / l.Window)}
		if l.PerNode {
			w.node = node
		}
		if o.windows[w] >= l.Requests {
			return l.Window - now%l.Window
		}
		counts = append(counts, w)
	}
	for _, w := range counts {
		o.windows[w]++
	}
	return 0
}

// slowWriter writes no faster than rate, in bytes a second.
type slowWriter struct {
	http.ResponseWriter
	rate int64
}

func (s *slowWriter) Write(p []byte) (int, error) {
	n, err := s.ResponseWriter.Write(p)
	time.Sleep(time.Duration(int64(n) * int64(time.Second) / s.rate))
	return n, err
}

func (s *slowWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// begin starts the run's time.
func (o *virtualOrigin) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.begun = time.Now()
}
