//go:build e2e && linux

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestMalformedRequests: what a broken or hostile client sends gets the code
// that the specification gives, reaches no registry, and takes no node down.
func TestMalformedRequests(t *testing.T) {
	o := startOrigin(t)
	n := startNode(t, o.url(), nil)
	blob := contents(600, 100)
	digest := o.add("sha256", blob)
	fetch(t, 10*time.Second, "GET", n.at("app", "blobs/"+digest)).wantWhole(t, "a blob, to begin with", digest)
	asked := o.asked()

	ns := "ns=" + originName
	zeros := strings.Repeat("0", 64)
	for _, tt := range []struct {
		name    string
		target  string
		headers string
		status  []int
		code    string
	}{
		{"digest too short", "/v2/app/blobs/sha256:abc?" + ns, "", []int{400}, "DIGEST_INVALID"},
		{"digest in capitals", "/v2/app/blobs/sha256:" + strings.Repeat("A", 64) + "?" + ns, "", []int{400}, "DIGEST_INVALID"},
		{"unknown algorithm", "/v2/app/blobs/md5:d41d8cd98f00b204e9800998ecf8427e?" + ns, "", []int{400}, "DIGEST_INVALID"},
		{"no digest", "/v2/app/blobs/latest?" + ns, "", []int{400}, "DIGEST_INVALID"},
		{"digest with a path", "/v2/app/blobs/sha256:..%2f..%2fetc%2fpasswd?" + ns, "", []int{400}, ""},
		{"digest with NUL", "/v2/app/blobs/sha256:%00" + zeros[1:] + "?" + ns, "", []int{400}, "DIGEST_INVALID"},
		{"manifest digest too long", "/v2/app/manifests/sha256:" + zeros + "00?" + ns, "", []int{400}, "DIGEST_INVALID"},
		{"bad tag", "/v2/app/manifests/-v1?" + ns, "", []int{400, 404}, ""},
		{"tag of 200 letters", "/v2/app/manifests/" + strings.Repeat("a", 200) + "?" + ns, "", []int{400, 404}, ""},
		{"name in capitals", "/v2/APP/blobs/sha256:" + zeros + "?" + ns, "", []int{400}, "NAME_INVALID"},
		{"traversal", "/v2/../../../etc/passwd?" + ns, "", []int{301, 307, 400, 404}, ""},
		{"traversal in a name", "/v2/app/../../secret/blobs/sha256:" + zeros + "?" + ns, "", []int{301, 307, 400, 404}, ""},
		{"escaped traversal in a name", "/v2/app%2f..%2f..%2fsecret/blobs/sha256:" + zeros + "?" + ns, "", []int{301, 307, 400, 404}, ""},
		{"name of 5,000 letters", "/v2/" + strings.Repeat("a", 5000) + "/blobs/sha256:" + zeros + "?" + ns, "", []int{400}, "NAME_INVALID"},
		{"origin with a path", "/v2/app/blobs/sha256:" + zeros + "?ns=registry.test%2f..%2fadmin", "", []int{400, 403}, ""},
		{"origin with a user", "/v2/app/blobs/sha256:" + zeros + "?ns=user:pw%40registry.test", "", []int{400, 403}, ""},
		{"metadata service", "/v2/app/blobs/sha256:" + zeros + "?ns=169.254.169.254", "", []int{403}, "DENIED"},
		{"private address", "/v2/app/blobs/sha256:" + zeros + "?ns=10.0.0.1", "", []int{403}, "DENIED"},
		{"loopback", "/v2/app/blobs/sha256:" + zeros + "?ns=" + strings.ReplaceAll(o.addr, ":", "%3A"), "", []int{403}, "DENIED"},
		{"range past the end", "/v2/app/blobs/" + digest + "?" + ns, "Range: bytes=100-\r\n", []int{416}, ""},
		{"range backwards", "/v2/app/blobs/" + digest + "?" + ns, "Range: bytes=9-3\r\n", []int{200, 400, 416}, ""},
		{"range of letters", "/v2/app/blobs/" + digest + "?" + ns, "Range: bytes=a-b\r\n", []int{200, 400, 416}, ""},
		{"range that overflows", "/v2/app/blobs/" + digest + "?" + ns, "Range: bytes=99999999999999999999999-\r\n", []int{200, 400, 416}, ""},
		{"a thousand ranges", "/v2/app/blobs/" + digest + "?" + ns, "Range: bytes=" + strings.Repeat("0-0,", 999) + "0-0\r\n", []int{200, 400, 416}, ""},
		{"10 MB of headers", "/v2/app/blobs/" + digest + "?" + ns, "X-Long: " + strings.Repeat("x", 10<<20) + "\r\n", []int{400, 431}, ""},
		{"10 MB of path", "/v2/" + strings.Repeat("a/", 5<<20) + "blobs/sha256:" + zeros + "?" + ns, "", []int{400, 414, 431}, ""},
		{"unknown path", "/v3/app?" + ns, "", []int{404}, ""},
		{"bad escape", "/v2/app/blobs/sha256:%zz?" + ns, "", []int{400}, ""},
		{"bad number of tags", "/v2/app/tags/list?n=minus&" + ns, "", []int{400}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, body, err := raw(n.proxy, "GET "+tt.target+" HTTP/1.1\r\nHost: node\r\nConnection: close\r\n"+tt.headers+"\r\n")
			if err != nil {
				// A server may cut a request that is beyond all measure.
				if strings.HasPrefix(tt.name, "10 MB") {
					return
				}
				t.Fatal(err)
			}
			for _, status := range tt.status {
				if resp.StatusCode == status {
					if tt.code != "" && (reply{body: body}).code() != tt.code {
						t.Errorf("%s: %s, want code %s", resp.Status, body, tt.code)
					}
					return
				}
			}
			t.Errorf("%s: %.300s, want %v %s", resp.Status, body, tt.status, tt.code)
		})
	}
	for _, junk := range []string{"", "\r\n\r\n", "GET", "\x16\x03\x01\x02\x00\x01", "GET / HTTP/9.9\r\n\r\n", "GET /v2/ HTTP/1.1\r\n\r\n",
		"POST /v2/app/blobs/uploads/ HTTP/1.1\r\nHost: node\r\nContent-Length: 99999999999\r\n\r\n"} {
		raw(n.proxy, junk, hangUp) // whatever comes back
	}
	push, body, err := raw(n.proxy, "POST /v2/app/blobs/uploads/?"+ns+" HTTP/1.1\r\nHost: node\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	if code := (reply{body: body}).code(); code != "UNSUPPORTED" {
		t.Errorf("a push: %s %s, want UNSUPPORTED", push.Status, body)
	}
	if got := o.asked(); got != asked {
		t.Errorf("malformed requests made %d of the origin", got-asked)
	}
	n.healthy(t)
	fetch(t, 10*time.Second, "GET", n.at("app", "blobs/"+digest)).wantWhole(t, "a blob, at the end", digest)
}

// hangUp makes raw end its side of the connection after the request, which a
// server may take for a client that is gone.
const hangUp = true

// raw writes bytes to addr and reads one response. It gives up after 10 s.
func raw(addr, request string, end ...bool) (*http.Response, []byte, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	written := make(chan error, 1)
	go func() { // the answer may come before the request is through
		_, err := io.WriteString(c, request)
		if len(end) > 0 {
			c.(*net.TCPConn).CloseWrite()
		}
		written <- err
	}()
	defer func() { c.Close(); <-written }()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return nil, nil, fmt.Errorf("no response: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, nil, fmt.Errorf("%s, body: %w", resp.Status, err)
	}
	return resp, body, nil
}
