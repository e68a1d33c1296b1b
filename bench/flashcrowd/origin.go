package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/peercache/peercache/bench/internal/rig"
)

const (
	registryPort = "5001"
	frontPort    = "5000"
	userName     = "flashcrowd"
	password     = "flashcrowd"
)

// passwordFile lets that user in by that password: docker-registry knows bcrypt
// only. Of the lowest cost, since each request is checked anew.
const passwordFile = userName + ":$2a$04$KqFHxIabTqXtVEYCKDE43eLzFR/j24NgJ6dM42GnvD3B3P8nmyqFe\n"

// origin is docker-registry with the proxy that counts in front of it, on a host
// of their own. Nodes know the proxy's address only.
type origin struct {
	*front
	host         *rig.Host
	registryAddr string
	server       *http.Server
	served       chan struct{}
}

func startOrigin(ctx context.Context, r *rig.Rig, network *rig.Network, e *experiment) (*origin, error) {
	host, err := network.AddHost(ctx, 8*e.run.Origin.Link, 8*e.run.Origin.Link)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(r.Dir, "registry")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	o := &origin{host: host, registryAddr: net.JoinHostPort("127.0.0.1", registryPort), served: make(chan struct{})}
	config := fmt.Sprintf(`version: 0.1
log:
  level: warn
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: %s
  maintenance:
    uploadpurging:
      enabled: false
http:
  addr: %s
`, filepath.Join(dir, "data"), o.registryAddr)
	if e.private() {
		users := filepath.Join(dir, "htpasswd")
		if err := os.WriteFile(users, []byte(passwordFile), 0o600); err != nil {
			return nil, err
		}
		config += fmt.Sprintf("auth:\n  htpasswd:\n    realm: flashcrowd\n    path: %s\n", users)
	}
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	program, err := rig.Find("docker-registry")
	if err != nil {
		return nil, err
	}
	p, err := r.StartIn(host.Namespace, []string{"OTEL_TRACES_EXPORTER=none"}, "registry", program, "serve", file)
	if err != nil {
		return nil, err
	}
	client := host.Client()
	err = rig.Await(ctx, 20*time.Second, "docker-registry is up", func() (bool, error) {
		if err := p.Ended(); err != nil {
			return true, err
		}
		resp, err := client.Get("http://" + o.registryAddr + "/v2/")
		if err != nil {
			return false, err
		}
		return true, resp.Body.Close()
	})
	if err != nil {
		return nil, err
	}
	l, err := host.Listen(net.JoinHostPort(host.IP, frontPort))
	if err != nil {
		return nil, err
	}
	o.front = newFront(o.registryAddr, client.Transport)
	o.temper = newTemper(e.run)
	o.server = &http.Server{
		Handler: o.front, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			boundUnsent(c)
			return ctx
		},
	}
	go func() {
		defer close(o.served)
		if err := o.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			r.Log("the proxy in front of the registry has ended: %v", err)
		}
	}()
	return o, nil
}

// url is where nodes find the origin.
func (o *origin) url() string {
	return "http://" + net.JoinHostPort(o.host.IP, frontPort)
}

// unsent is how far what was written may be ahead of what was sent, in bytes: 20 ms
// of 100 Mbit/s. Without it a response that is broken off counts for up to some
// MiB, the kernel's send buffer, that never went over the link.
const unsent = 256 << 10

func boundUnsent(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		if raw, err := tcp.SyscallConn(); err == nil {
			// Where it fails the connection is gone.
			_ = raw.Control(func(fd uintptr) {
				_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsent)
			})
		}
	}
}

func (o *origin) close() {
	o.server.Close()
	<-o.served
}

// dockerConfig writes a directory for DOCKER_CONFIG, with the password or empty.
func dockerConfig(dir string, withPassword bool) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	type auth struct {
		Auth string `json:"auth"`
	}
	auths := map[string]auth{}
	if withPassword {
		auths[rig.OriginName] = auth{base64.StdEncoding.EncodeToString([]byte(userName + ":" + password))}
	}
	data, err := json.Marshal(map[string]any{"auths": auths})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600)
}
