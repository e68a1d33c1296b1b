package fetcher

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/peercache/peercache/fetcher/policy"
)

var fromNames = [...]string{fromStore: "store", fromPeer: "peer", fromOrigin: "origin"}

// busyReason says why a peer was told that this node is busy.
type busyReason uint8

const (
	refusedByCore   busyReason = iota // the core's upload slots
	refusedFull                       // Options.Uploads
	refusedUnproven                   // the end of a blob that is being proven again
)

var busyNames = [...]string{refusedByCore: "core", refusedFull: "full", refusedUnproven: "unproven"}

// connectResult says how an attempt to connect ended.
type connectResult uint8

const (
	connectUp      connectResult = iota
	connectFailed                // no connection
	connectSilent                // a connection, and no greeting
	connectRefused               // too many at once
)

var connectNames = [...]string{connectUp: "up", connectFailed: "failed", connectSilent: "silent", connectRefused: "refused"}

// provided is what a digest that is announced stands for.
type provided uint8

const (
	providedBlob provided = iota
	providedGroup
	providedChunk
)

var providedNames = [...]string{providedBlob: "blob", providedGroup: "group", providedChunk: "chunk"}

// direction is that of a control message.
type direction uint8

const (
	sent direction = iota
	received
)

var directionNames = [...]string{sent: "sent", received: "received"}

var messageNames = [...]string{
	policy.MsgState: "state", policy.MsgHave: "have", policy.MsgLeave: "leave", policy.MsgAsk: "ask",
	policy.MsgGrant: "grant", policy.MsgGiveBack: "give_back", policy.MsgRedirect: "redirect",
	policy.MsgPeers: "peers", policy.MsgPing: "ping", policy.MsgPong: "pong",
	policy.MsgAskSums: "ask_sums", policy.MsgSums: "sums", policy.MsgJoin: "join", policy.MsgCooldown: "cooldown", policy.MsgFree: "free",
	frameAddresses: "addresses",
}

// metrics counts in plain atomics, which Status reads too, and shows them to
// Prometheus when it asks.
type metrics struct {
	receivedBytes, wastedBytes, servedBytes [fromOrigin + 1]atomic.Int64
	events                                  [policy.MetricCount]atomic.Int64
	stale                                   atomic.Int64
	refusals                                [len(busyNames)]atomic.Int64
	connects                                [len(connectNames)]atomic.Int64
	provides, withdraws                     [len(providedNames)]atomic.Int64
	messages                                [len(directionNames)][len(messageNames)]atomic.Int64
	fetcher                                 *Fetcher
}

func newMetrics() *metrics { return &metrics{} }

func (m *metrics) received(f from, n int64) { m.receivedBytes[f].Add(n) }
func (m *metrics) wasted(f from, n int64)   { m.wastedBytes[f].Add(n) }
func (m *metrics) served(f from, n int64)   { m.servedBytes[f].Add(n) }
func (m *metrics) refused(r busyReason)     { m.refusals[r].Add(1) }
func (m *metrics) connect(r connectResult)  { m.connects[r].Add(1) }
func (m *metrics) provided(p provided)      { m.provides[p].Add(1) }
func (m *metrics) withdrawn(p provided)     { m.withdraws[p].Add(1) }
func (m *metrics) message(kind policy.MessageKind, d direction) {
	if int(kind) < len(messageNames) {
		m.messages[d][kind].Add(1)
	}
}
func (m *metrics) policy(e policy.Metric, n int64) {
	if e < policy.MetricCount {
		m.events[e].Add(n)
	}
}

var (
	receivedDesc = prometheus.NewDesc("peercache_fetcher_received_bytes_total",
		"Content bytes received from the network, those of no use included.", []string{"source"}, nil)
	wastedDesc = prometheus.NewDesc("peercache_fetcher_wasted_bytes_total",
		"Content bytes received from the network that were of no use.", []string{"source"}, nil)
	servedDesc = prometheus.NewDesc("peercache_proxy_served_bytes_total",
		"Body bytes handed to clients, by where the request found them first.", []string{"source"}, nil)
	policyDesc = prometheus.NewDesc("peercache_fetcher_policy_total",
		"Decisions of the policy core, by kind; wasted_bytes counts bytes.", []string{"event"}, nil)
	staleDesc = prometheus.NewDesc("peercache_fetcher_stale_answers_total",
		"Answers about tags, lists and referrers given while the origin could not be asked.", nil, nil)
	blobsDesc = prometheus.NewDesc("peercache_fetcher_active_blobs",
		"Blobs that are being read or fetched.", nil, nil)
	readersDesc = prometheus.NewDesc("peercache_fetcher_readers",
		"Client requests that are being served.", nil, nil)
	memoryDesc = prometheus.NewDesc("peercache_fetcher_held_chunks",
		"Chunks in memory that wait to be stored.", nil, nil)
	refusedDesc = prometheus.NewDesc("peercache_fetcher_uploads_refused_total",
		"Ranges that peers asked for and were told to ask others for: by the core's slots, by the bound on open files, or because a proof is due.",
		[]string{"reason"}, nil)
	limitedDesc = prometheus.NewDesc("peercache_fetcher_limiter_wait_seconds_total",
		"Time that bodies waited because of a configured rate, summed over them.", []string{"limit"}, nil)
	connectsDesc = prometheus.NewDesc("peercache_fetcher_connects_total",
		"Connections to nodes that others named, by how the attempt ended.", []string{"result"}, nil)
	providesDesc = prometheus.NewDesc("peercache_fetcher_provides_total",
		"Announcements on the DHT.", []string{"of"}, nil)
	withdrawsDesc = prometheus.NewDesc("peercache_fetcher_withdraws_total",
		"Announcements on the DHT that were ended.", []string{"of"}, nil)
	messagesDesc = prometheus.NewDesc("peercache_fetcher_messages_total",
		"Control messages between nodes.", []string{"kind", "direction"}, nil)
)

func (m *metrics) register(r prometheus.Registerer, f *Fetcher) {
	m.fetcher = f
	if r == nil {
		return
	}
	if err := r.Register(m); err != nil {
		f.log.Error("registering metrics", "err", err)
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{receivedDesc, wastedDesc, servedDesc, policyDesc, staleDesc, blobsDesc, readersDesc, memoryDesc,
		refusedDesc, limitedDesc, connectsDesc, providesDesc, withdrawsDesc, messagesDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v *atomic.Int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v.Load()), labels...)
	}
	for f := fromStore; f <= fromOrigin; f++ {
		if f != fromStore {
			counter(receivedDesc, &m.receivedBytes[f], fromNames[f])
			counter(wastedDesc, &m.wastedBytes[f], fromNames[f])
		}
		counter(servedDesc, &m.servedBytes[f], fromNames[f])
	}
	for e := policy.Metric(1); e < policy.MetricCount; e++ {
		counter(policyDesc, &m.events[e], e.String())
	}
	counter(staleDesc, &m.stale)
	for i, name := range busyNames {
		counter(refusedDesc, &m.refusals[i], name)
	}
	for i, name := range connectNames {
		counter(connectsDesc, &m.connects[i], name)
	}
	for i, name := range providedNames {
		counter(providesDesc, &m.provides[i], name)
		counter(withdrawsDesc, &m.withdraws[i], name)
	}
	for kind, name := range messageNames {
		for d, way := range directionNames {
			if name != "" {
				counter(messagesDesc, &m.messages[d][kind], name, way)
			}
		}
	}
	gauge := func(d *prometheus.Desc, v int) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v))
	}
	f := m.fetcher
	for name, l := range map[string]*limiter{"upload": f.limits.upload, "download": f.limits.download, "origin": f.limits.origin} {
		waited := 0.0
		if l != nil {
			waited = time.Duration(l.waited.Load()).Seconds()
		}
		ch <- prometheus.MustNewConstMetric(limitedDesc, prometheus.CounterValue, waited, name)
	}
	f.mu.RLock()
	blobs := len(f.blobs)
	f.mu.RUnlock()
	gauge(blobsDesc, blobs)
	gauge(readersDesc, int(f.readerCount.Load()))
	f.mem.mu.Lock()
	chunks := len(f.mem.held)
	f.mem.mu.Unlock()
	gauge(memoryDesc, chunks)
}
