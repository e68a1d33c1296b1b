package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/peercache/peercache/cmd/peercache/internal/config"
)

// Status is what a node says about itself: the body of GET /status, and of
// `peercache status --json`. Keys are only ever added. Numbers of bytes count
// from the start of the process, except in Store.
type Status struct {
	// ID is the node's libp2p peer ID.
	ID string `json:"id"`
	// Addresses are full multiaddrs, with /p2p/, that another node can
	// bootstrap from.
	Addresses []string `json:"addresses"`
	// Proxy and Admin are the HOST:PORT that are listened on.
	Proxy string `json:"proxy"`
	Admin string `json:"admin"`
	// Peers are the nodes that this one is connected to.
	Peers []Peer `json:"peers"`
	// Blobs counts what is held.
	Blobs Blobs `json:"blobs"`
	Store Store `json:"store"`
	// Received counts bytes from the network by where they came from.
	Received Received `json:"received"`
	// Served counts body bytes to clients by where their request found them.
	Served  Served   `json:"served"`
	Origins []Origin `json:"origins"`
	// Active are the blobs that are being read, fetched or coordinated: see
	// [Live].
	Active []ActiveBlob `json:"active"`

	Version       string  `json:"version"`
	UptimeSeconds float64 `json:"uptime_seconds"`
}

// Peer is a connected node.
type Peer struct {
	ID        string   `json:"id"`
	Addresses []string `json:"addresses"`
	// Inbound says that the peer dialled this node.
	Inbound bool `json:"inbound"`
	// ConnectedSeconds is how long it has been connected.
	ConnectedSeconds float64 `json:"connected_seconds"`
	// LatencySeconds is the round trip, absent where it is not known.
	LatencySeconds float64 `json:"latency_seconds,omitempty"`
}

// Blobs counts blobs in the store.
type Blobs struct {
	Complete int `json:"complete"`
	Partial  int `json:"partial"`
}

// Store is the store's size and its limits.
type Store struct {
	Bytes    int64 `json:"bytes"`
	MaxBytes int64 `json:"max_bytes"`
	// FreeBytes is what the file system has left.
	FreeBytes int64 `json:"free_bytes"`
}

// Received counts bytes from the network, waste included.
type Received struct {
	Peer   int64 `json:"peer"`
	Origin int64 `json:"origin"`
}

// Served counts bytes to clients.
type Served struct {
	Store  int64 `json:"store"`
	Peer   int64 `json:"peer"`
	Origin int64 `json:"origin"`
}

// Origin is the health of an upstream registry.
type Origin struct {
	Origin   string    `json:"origin"`
	Endpoint string    `json:"endpoint"`
	State    string    `json:"state"` // ok, suspect, open
	Since    time.Time `json:"since"`
	// LastError is the latest failure.
	LastError string `json:"last_error,omitempty"`
	// CooldownSeconds is how long the origin has asked to be left alone yet.
	CooldownSeconds float64 `json:"cooldown_seconds,omitempty"`
}

// maxStatus bounds a status document; with 5,000 peers it is about 1.5 MB.
const maxStatus = 64 << 20

// Fetch asks the node whose admin server is at addr (HOST:PORT) for its status.
// raw is the document as it came.
func Fetch(ctx context.Context, addr string) (status Status, raw []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/status", nil)
	if err != nil {
		return Status{}, nil, err
	}
	resp, err := ask(req, addr)
	if err != nil {
		return Status{}, nil, err
	}
	defer resp.Body.Close()
	if raw, err = io.ReadAll(io.LimitReader(resp.Body, maxStatus)); err != nil {
		return Status{}, nil, fmt.Errorf("status of %s: %w", addr, err)
	}
	if err := json.Unmarshal(raw, &status); err != nil || status.ID == "" {
		return Status{}, nil, fmt.Errorf("%s is not the admin address of a Peercache node: GET /status gives no status", addr)
	}
	return status, raw, nil
}

// ErrNotServing says that a node is there and starts or stops.
var ErrNotServing = errors.New("is not serving")

// ask does a request to the node at addr. Its error says what the matter is where
// the answer is not 200.
func ask(req *http.Request, addr string) (*http.Response, error) {
	// No proxy, no reuse: one question to one address.
	transport := &http.Transport{
		DisableKeepAlives:     true,
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		ResponseHeaderTimeout: 15 * time.Second,
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		if op := (*net.OpError)(nil); errors.As(err, &op) {
			err = op
		}
		return nil, fmt.Errorf("no node answers at %s: %w", addr, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
	why := printable(strings.TrimSpace(string(body)))
	switch resp.StatusCode {
	case http.StatusServiceUnavailable:
		return nil, fmt.Errorf("the node at %s %w: %s", addr, ErrNotServing, why)
	case http.StatusTooManyRequests:
		return nil, fmt.Errorf("the node at %s refuses: %s", addr, why)
	}
	return nil, fmt.Errorf("%s is not the admin address of a Peercache node: GET %s gives %s", addr, req.URL.Path, resp.Status)
}

// Render writes the status for people.
func (s Status) Render(w io.Writer) error {
	size := config.FormatSize
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("node", "%s", s.ID)
	row("version", "%s, up %s", s.Version, time.Duration(s.UptimeSeconds*float64(time.Second)).Round(time.Second))
	row("proxy", "http://%s", s.Proxy)
	for i, a := range s.Addresses {
		name := "bootstrap"
		if i > 0 {
			name = ""
		}
		row(name, "%s", a)
	}
	row("blobs", "%d complete, %d partial", s.Blobs.Complete, s.Blobs.Partial)
	row("store", "%s of %s, %s free on the file system", size(s.Store.Bytes), size(s.Store.MaxBytes), size(s.Store.FreeBytes))
	row("received", "%s from peers, %s from origins", size(s.Received.Peer), size(s.Received.Origin))
	row("served", "%s from store, %s from peers, %s from origins", size(s.Served.Store), size(s.Served.Peer), size(s.Served.Origin))
	row("peers", "%d", len(s.Peers))
	if err := t.Flush(); err != nil {
		return err
	}
	if len(s.Peers) > 0 {
		fmt.Fprintln(t, "\nPEER\tADDRESS\tCONNECTED\tLATENCY")
		for _, p := range s.Peers {
			latency := "-"
			if p.LatencySeconds > 0 {
				latency = time.Duration(p.LatencySeconds * float64(time.Second)).Round(10 * time.Microsecond).String()
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", p.ID, strings.Join(p.Addresses, " "),
				time.Duration(p.ConnectedSeconds*float64(time.Second)).Round(time.Second), latency)
		}
	}
	if len(s.Active) > 0 {
		fmt.Fprintln(t, "\nBLOB\tSIZE\tHERE\tFROM STORE\tFROM PEERS\tFROM ORIGIN\tNEIGHBOURS")
		for _, b := range s.Active {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%d\n", shortDigest(b.Digest), b.sizeText(), b.progressText(),
				size(b.Bytes.Store), size(b.Bytes.Peer), size(b.Bytes.Origin), len(b.Neighbours))
		}
	}
	if len(s.Origins) > 0 {
		fmt.Fprintln(t, "\nORIGIN\tENDPOINT\tSTATE\tLAST ERROR")
		for _, o := range s.Origins {
			last := o.LastError
			if last == "" {
				last = "-"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", o.Origin, o.Endpoint, o.State, last)
		}
	}
	return t.Flush()
}
