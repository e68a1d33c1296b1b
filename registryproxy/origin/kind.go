package origin

import (
	"net/http"
	"strconv"
)

// kind is what a request is for: the label of metrics, and what rate limits
// and slots distinguish.
type kind string

const (
	kindManifest  kind = "manifest"
	kindBlob      kind = "blob"
	kindTags      kind = "tags"
	kindReferrers kind = "referrers"
	kindToken     kind = "token"
	kindProbe     kind = "probe"
)

// metered reports whether registries count such requests against a quota.
func (k kind) metered() bool {
	return k == kindManifest || k == kindTags || k == kindReferrers
}

// code is the OCI error code for a status where the origin sent none.
func (k kind) code(status int) string {
	switch status {
	case http.StatusNotFound:
		switch k {
		case kindManifest, kindReferrers:
			return CodeManifestUnknown
		case kindBlob:
			return CodeBlobUnknown
		case kindTags:
			return CodeNameUnknown
		}
	case http.StatusUnauthorized:
		return CodeUnauthorized
	case http.StatusForbidden:
		return CodeDenied
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return CodeUnsupported
	case http.StatusTooManyRequests, http.StatusRequestTimeout:
		return CodeTooManyRequests
	case http.StatusRequestedRangeNotSatisfiable:
		return CodeRangeInvalid
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return CodeUnavailable
	}
	return CodeUnknown
}

// statusLabel is a metric label for a status. Origins choose their statuses, so
// that unusual ones are folded together.
func statusLabel(status int) string {
	if http.StatusText(status) == "" {
		return strconv.Itoa(status/100) + "xx"
	}
	return strconv.Itoa(status)
}
