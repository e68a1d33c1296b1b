package origin

import (
	"net/http"
	"strings"
)

// challenge is how a registry wants to be authenticated to.
type challenge struct {
	scheme  string // "bearer" or "basic"
	realm   string
	service string
	scope   string // as it was given, for the repository below
	repo    string
}

// scopeFor is the scope to ask a token for, to read repository repo: the
// challenge's own, with the repository replaced if it named one. Some
// registries have scopes that name none (public.ecr.aws: "aws").
func (ch *challenge) scopeFor(repo string) string {
	if ch.scope == "" {
		return "repository:" + repo + ":pull"
	}
	if ch.repo == "" {
		return ch.scope
	}
	return strings.ReplaceAll(ch.scope, ":"+ch.repo+":", ":"+repo+":")
}

// findChallenge returns the challenge of a 401 that this client can meet, or
// nil. Bearer goes before Basic: it does not send the password to the registry.
func findChallenge(header http.Header, repo string) *challenge {
	var basic *challenge
	for _, line := range header.Values("WWW-Authenticate") {
		for _, c := range parseChallenges(line) {
			switch {
			case c.scheme == "bearer" && c.params["realm"] != "":
				return &challenge{
					scheme: "bearer", realm: c.params["realm"], service: c.params["service"],
					scope: c.params["scope"], repo: repo,
				}
			case c.scheme == "basic" && basic == nil:
				basic = &challenge{scheme: "basic"}
			}
		}
	}
	return basic
}

// authChallenge is one challenge of a WWW-Authenticate header. Scheme and names
// of parameters are in lower case.
type authChallenge struct {
	scheme string
	params map[string]string
}

// parseChallenges parses the list of challenges of RFC 9110 section 11.6.1:
//
//	challenge  = auth-scheme [ 1*SP ( token68 / #auth-param ) ]
//	auth-param = token BWS "=" BWS ( token / quoted-string )
//
// Commas separate challenges as well as parameters: a token that is followed by
// neither "=" nor the end of a list element begins a new challenge. What cannot
// be parsed ends the list; what came before it counts. go-containerregistry's
// parser is not exported, and knows only one challenge a line.
func parseChallenges(s string) []authChallenge {
	var out []authChallenge
	for {
		s = strings.TrimLeft(s, " \t,")
		if s == "" {
			return out
		}
		word, rest := cutToken(s)
		if word == "" {
			return out
		}
		after := strings.TrimLeft(rest, " \t")
		if value, ok := strings.CutPrefix(after, "="); ok && len(out) > 0 {
			v, rest, ok := cutValue(strings.TrimLeft(value, " \t"))
			if !ok {
				return out
			}
			name, params := strings.ToLower(word), out[len(out)-1].params
			if _, twice := params[name]; !twice {
				params[name] = v
			}
			s = rest
			continue
		}
		if after != "" && after[0] != ',' && after == rest {
			return out // a scheme is followed by a space
		}
		out = append(out, authChallenge{scheme: strings.ToLower(word), params: make(map[string]string)})
		s = skipToken68(after)
	}
}

const (
	alphanumeric = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	tokenChars   = alphanumeric + "!#$%&'*+-.^_`|~"
	token68Chars = alphanumeric + "-._~+/"
)

// skipToken68 skips a token68, which is what runs to the end of a list element.
func skipToken68(s string) string {
	rest := strings.TrimLeft(s, token68Chars)
	if rest == s {
		return s
	}
	rest = strings.TrimLeft(strings.TrimLeft(rest, "="), " \t")
	if rest == "" || rest[0] == ',' {
		return rest
	}
	return s
}

// cutToken cuts a token off the beginning of s.
func cutToken(s string) (token, rest string) {
	rest = strings.TrimLeft(s, tokenChars)
	return s[:len(s)-len(rest)], rest
}

// cutValue cuts a token or quoted string off the beginning of s and takes the
// quotes away. Values that should be quoted but are not (URLs) run to the next
// comma.
func cutValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		if i := strings.IndexByte(s, ','); i >= 0 {
			value, rest = s[:i], s[i:]
		} else {
			value = s
		}
		value = strings.TrimRight(value, " \t")
		return value, rest, !strings.ContainsAny(value, "\" \t")
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}
