//go:build unix && !linux

package demo

import "syscall"

// processAttributes keep a terminal's Ctrl-C from a child: the demo stops it
// itself, in order. A demo that is killed leaves its nodes behind here.
func processAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
