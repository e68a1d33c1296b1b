package config

// Example is a configuration file with every key, at its default where it has
// one.
func Example() string { return example }

const example = `listen: 127.0.0.1:5050        # the proxy
admin: 127.0.0.1:5052         # metrics, health, status
data: /var/lib/peercache
max_size: 50GiB               # default: at most 20% of the file system, too
min_free: 20%
verify: strict                # or member: trust what a member signed
pprof: false
zone: ""                      # where the node is, in words that mean the same on every node
rack: ""                      # within the zone
announce: groups              # on the DHT: blobs, groups of chunks too, or chunks too
p2p:
  listen: [/ip4/127.0.0.1/tcp/5051]
  open_cluster: false         # other than loopback needs true: anybody may join
  announce: []
  bootstrap: []               # multiaddrs, dns:NAME[:PORT], file:PATH
  mdns: false
limits:                       # a second, such as 50MiB or 400mbit; 0 is no limit
  upload: 0                   # to peers
  download: 0                 # from peers
  origin: 0
origins:
  default: docker.io          # for requests that name none
  allow: []                   # private registries: HOST[:PORT] or *.DOMAIN
  named:
    registry.test:5000: http://127.0.0.1:5000
    registry.example.com:
      url: https://10.0.0.5
      mirrors: [https://10.0.0.6]
      ca_file: ""             # further certificates, PEM
      plain_http: false
  first_byte: 15s
  between_bytes: 5s
tags:
  lifetime: 1m
  max_stale: 168h
  from_peers: always          # peers' answers; or origin-down, never
log:
  level: info
  format: text
`
