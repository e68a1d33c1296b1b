package demo

import "syscall"

// processAttributes make a child die with its parent, whatever ends that, and
// keep a terminal's Ctrl-C from it: the demo stops it itself, in order.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
