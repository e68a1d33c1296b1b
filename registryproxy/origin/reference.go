package origin

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
)

// What becomes part of a URL is checked here as well as by whoever took it from
// a client, so that no name can reach another path of an origin.

// check is source for questions about a digest.
func (c *Client) check(src Source, d digest.Digest) (*target, error) {
	t, err := c.source(src)
	if err != nil {
		return nil, err
	}
	if err := d.Validate(); err != nil {
		return nil, &Error{Status: http.StatusBadRequest, Code: CodeDigestInvalid, Message: fmt.Sprintf("%.80q is not a digest", d), err: err}
	}
	return t, nil
}

// source finds the target of a source.
func (c *Client) source(src Source) (*target, error) {
	t, err := c.target(src.Origin)
	if err != nil {
		return nil, err
	}
	if !validRepository(src.Repository) {
		return nil, &Error{Status: http.StatusBadRequest, Code: CodeNameInvalid, Message: fmt.Sprintf("%.80q is not the name of a repository", src.Repository)}
	}
	return t, nil
}

// validRepository accepts names that can be part of a path without changing its
// meaning. Which names are allowed besides is the origin's business.
func validRepository(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || part[0] == '.' {
			return false
		}
		for _, c := range []byte(part) {
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
				return false
			}
		}
	}
	return true
}

// validTag accepts a tag (distribution-spec: "Pulling manifests").
func validTag(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}
