package origin

import (
	"fmt"
	"testing"
)

// Names come from clients: however many there are, what is kept is bounded, and
// what was used last is kept.
func TestLRU(t *testing.T) {
	l := newLRU[int](3)
	for i := range 10 {
		l.set(fmt.Sprint(i), i)
		l.get("0", func() int { return 0 })
	}
	if got := fmt.Sprint(l.values()); got != "[0 9 8]" {
		t.Error(got)
	}
	l.set("8", 80)
	if got := fmt.Sprint(l.values()); got != "[80 0 9]" {
		t.Error(got)
	}
	if _, ok := l.get("1", nil); ok {
		t.Error("1 was kept")
	}
}

func TestManyOrigins(t *testing.T) {
	c, err := New(&Options{Proxy: noProxy})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 5000 {
		c.Reachable(fmt.Sprintf("r%d.example.org", i))
		c.Check(fmt.Sprintf("r%d.test", i))
	}
	if h, r := len(c.hosts.values()), len(c.refused.values()); h > 1024 || r > 1024 {
		t.Errorf("%d hosts, %d refusals kept", h, r)
	}
}
