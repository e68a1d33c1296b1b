// Command serve measures how fast a node hands a stored blob to a client, beside
// nginx with the same file: curl downloads from one and the other in turn, over
// loopback, with the file in the page cache. It says nothing about disks or
// networks.
//
//	go run ./bench/serve [-runs 15] [-size 1073741824] [-json]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"time"

	"github.com/peercache/peercache/bench/internal/rig"
)

var (
	runs = flag.Int("runs", 15, "downloads from each")
	size = flag.Int64("size", 1<<30, "bytes of the blob")
)

// goal is the part of nginx's throughput that a node should reach.
const goal = 0.9

// download is one download. CPU is in seconds per GiB.
type download struct {
	MiBPerSecond float64 `json:"mib_per_second"`
	ServerCPU    float64 `json:"server_cpu_s_per_gib"`
	CurlCPU      float64 `json:"curl_cpu_s_per_gib"`
}

type result struct {
	Bytes     int64      `json:"bytes"`
	Peercache []download `json:"peercache"`
	Nginx     []download `json:"nginx"`
	// Ratio is the median over the runs of Peercache's throughput by that of
	// nginx right before or after it.
	Ratio float64 `json:"ratio"`
	Goal  float64 `json:"goal"`
}

func main() { rig.Main(10*time.Minute, nil, run) }

func run(ctx context.Context, r *rig.Rig) error {
	data := filepath.Join(r.Dir, "node")
	r.Log("seeding a store with %d bytes", *size)
	d, file, err := rig.Seed(ctx, data, rig.Content{Number: 1, Size: *size})
	if err != nil {
		return err
	}
	node, err := r.StartNode(ctx, "node", rig.NodeOptions{Data: data})
	if err != nil {
		return err
	}
	nginx, nginxURL, err := startNginx(ctx, r, file)
	if err != nil {
		return err
	}

	one := func(p *rig.Process, url string) (m download, err error) {
		before, err := p.CPU()
		if err != nil {
			return m, err
		}
		f, err := r.Curl(ctx, url)
		if err != nil {
			return m, err
		}
		after, err := p.CPU()
		if f.Bytes != *size {
			return m, fmt.Errorf("curl received %d bytes of %d from %s", f.Bytes, *size, url)
		}
		gib := float64(*size) / (1 << 30)
		return download{gib * 1024 / f.Seconds, (after - before).Seconds() / gib, f.CPU.Seconds() / gib}, err
	}
	res := result{Bytes: *size, Goal: goal}
	var ratios []float64
	for i := range *runs + 1 {
		var ours, theirs download
		fromNode := func() { ours, err = one(node.Process, node.BlobURL(d)) }
		fromNginx := func() { theirs, err = one(nginx, nginxURL) }
		turns := []func(){fromNode, fromNginx}
		if i%2 == 1 {
			turns[0], turns[1] = turns[1], turns[0]
		}
		for _, turn := range turns {
			if turn(); err != nil {
				return err
			}
		}
		if i == 0 {
			continue // warms both up
		}
		r.Log("run %d: peercache %.0f MiB/s, nginx %.0f MiB/s", i, ours.MiBPerSecond, theirs.MiBPerSecond)
		res.Peercache, res.Nginx = append(res.Peercache, ours), append(res.Nginx, theirs)
		ratios = append(ratios, ours.MiBPerSecond/theirs.MiBPerSecond)
	}
	s, err := node.Status(ctx)
	if err != nil {
		return err
	}
	if want := int64(*runs+1) * *size; s.Served.Store != want {
		return fmt.Errorf("the node says that it served %d bytes from its store, not %d", s.Served.Store, want)
	}
	res.Ratio = rig.Median(ratios)

	t := rig.NewTable(fmt.Sprintf("A stored blob of %d MiB to curl, medians of %d downloads each", *size>>20, *runs),
		"", "MiB/s", "server CPU-s/GiB", "curl CPU-s/GiB")
	for _, row := range []struct {
		name string
		list []download
	}{{"peercache", res.Peercache}, {"nginx", res.Nginx}} {
		t.Row(row.name,
			rig.Median(rig.Column(row.list, func(m download) float64 { return m.MiBPerSecond })),
			rig.Median(rig.Column(row.list, func(m download) float64 { return m.ServerCPU })),
			rig.Median(rig.Column(row.list, func(m download) float64 { return m.CurlCPU })))
	}
	t.Note("throughput by nginx's, pair by pair: %.2f (quartiles %.2f to %.2f); goal at least %.1f: %s",
		res.Ratio, rig.Quantile(ratios, 0.25), rig.Quantile(ratios, 0.75), goal, rig.Verdict(res.Ratio >= goal))
	return r.Report(res, t)
}

// startNginx starts an nginx that serves one file by sendfile. It is a single
// process, so that its CPU time is all of it and nothing outlives it.
func startNginx(ctx context.Context, r *rig.Rig, file string) (*rig.Process, string, error) {
	path, err := rig.Find("nginx")
	if err != nil {
		return nil, "", fmt.Errorf("%w (Debian: apt-get install nginx-light)", err)
	}
	port, err := rig.FreePort()
	if err != nil {
		return nil, "", err
	}
	dir := filepath.Join(r.Dir, "nginx")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, "", err
	}
	me, err := user.Current()
	if err != nil {
		return nil, "", err
	}
	config := fmt.Sprintf(`daemon off;
master_process off;
user %s;
pid %[2]s/pid;
error_log stderr warn;
events { worker_connections 64; }
http {
	access_log off;
	sendfile on;
	tcp_nopush on;
	client_body_temp_path %[2]s/body;
	proxy_temp_path %[2]s/proxy;
	fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi;
	scgi_temp_path %[2]s/scgi;
	server {
		listen 127.0.0.1:%[3]s;
		location = /blob { alias %[4]s; }
	}
}
`, me.Username, dir, port, file)
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, []byte(config), 0o600); err != nil {
		return nil, "", err
	}
	p, err := r.Start("nginx", path, "-p", dir, "-c", conf)
	if err != nil {
		return nil, "", err
	}
	url := fmt.Sprintf("http://127.0.0.1:%s/blob", port)
	err = rig.Await(ctx, 10*time.Second, "nginx is up", func() (bool, error) {
		if err := p.Ended(); err != nil {
			return true, err
		}
		return rig.Listening("127.0.0.1:" + port)
	})
	if err == nil {
		err = p.Ended()
	}
	return p, url, err
}
