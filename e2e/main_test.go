//go:build e2e && linux

package e2e

import (
	"flag"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.list"); f != nil && f.Value.String() != "" {
		os.Exit(m.Run())
	}
	switch os.Getenv(stageEnv) {
	case "":
		os.Exit(runInSandbox())
	case stageInit:
		os.Exit(initSandbox())
	}
	os.Exit(m.Run())
}
