package fetcher

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/peercache/peercache/fetcher/policy"
)

func policyConfig() policy.Config { return policy.DefaultConfig(newKeyring(1).Self()) }

func TestMetrics(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	o, net := newFakeOrigin(), newFakeNet()
	d := o.add(random(1, 2*mib))
	n := net.join(t, 1, o, newFakeStore(t), func(_ *policy.Config, opts *Options) { opts.Registerer = r })
	for range 2 {
		if _, err := n.get(blobRef(d), nil); err != nil {
			t.Fatal(err)
		}
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			key := f.GetName()
			for _, l := range m.Label {
				key += " " + l.GetValue()
			}
			got[key] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	for key, want := range map[string]float64{
		"peercache_fetcher_received_bytes_total origin": 2 * mib,
		"peercache_fetcher_received_bytes_total peer":   0,
		"peercache_fetcher_wasted_bytes_total origin":   0,
		"peercache_proxy_served_bytes_total origin":     2 * mib,
		"peercache_proxy_served_bytes_total store":      2 * mib,
		"peercache_fetcher_policy_total bans":           0,
		"peercache_fetcher_stale_answers_total":         0,

		"peercache_fetcher_uploads_refused_total core":        0,
		"peercache_fetcher_limiter_wait_seconds_total upload": 0,
		"peercache_fetcher_connects_total up":                 0,
		"peercache_fetcher_provides_total blob":               1,
		"peercache_fetcher_withdraws_total chunk":             0,
		"peercache_fetcher_messages_total received peers":     0,
		"peercache_fetcher_messages_total sent addresses":     0,
		"peercache_fetcher_messages_total sent join":          0,
	} {
		if v, ok := got[key]; !ok || v != want {
			t.Errorf("%s is %v (%v)", key, v, ok)
		}
	}
}
