package rig

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

// Fetched is what curl says of one download.
type Fetched struct {
	Seconds   float64 // from its start to the last byte
	FirstByte float64 // seconds from its start to the first byte of the response
	Bytes     int64
	CPU       time.Duration // of curl
}

// Curl downloads url into /dev/null. Anything but a 200 is an error.
func (r *Rig) Curl(ctx context.Context, url string) (f Fetched, err error) {
	cmd := exec.CommandContext(ctx, "curl", "--silent", "--show-error", "--fail", "--max-time", "300", "--output", "/dev/null",
		"--write-out", "%{time_total} %{time_starttransfer} %{size_download}", url)
	cmd.Env = environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := r.begin(nil, cmd); err != nil {
		return f, err
	}
	if err := cmd.Wait(); err != nil {
		return f, fmt.Errorf("curl %s: %w: %s", url, err, bytes.TrimSpace(stderr.Bytes()))
	}
	if _, err := fmt.Sscan(stdout.String(), &f.Seconds, &f.FirstByte, &f.Bytes); err != nil {
		return f, fmt.Errorf("curl wrote %q: %w", stdout.String(), err)
	}
	f.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return f, nil
}
