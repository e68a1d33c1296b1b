package origin

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

const (
	// tokenTimeout bounds getting a token, helpers and token server together.
	tokenTimeout = 10 * time.Second
	// defaultTokenLife is the docker token spec's, for servers that name none.
	defaultTokenLife = 60 * time.Second
	// passwordLife is how long a password from the keychain is used before the
	// keychain, and with it perhaps a helper process, is asked again.
	passwordLife = 5 * time.Minute
)

// token is the value of an Authorization header.
type token struct {
	header  string // empty: the keychain has nothing to offer
	expires time.Time
	// personal: it was had with credentials, so that what it opens may be
	// closed to others.
	personal bool
}

// tokenCall is the acquisition of a token that others may wait for as well.
type tokenCall struct {
	done  chan struct{}
	token *token
	err   error
}

// authorization returns what to send as Authorization to the endpoint (or, if
// ep is nil, to a host that a target redirected to and that gets nobody's
// credentials), nothing (an empty header) where there is nothing to send.
//
// Tokens are kept by host and scope. A token that is being fetched is waited
// for by everybody who needs it; it is fetched on the client's own time, so that
// the first one's going away does not fail the others. rejected is an
// Authorization that the host has just refused, and is not returned again.
func (c *Client) authorization(ctx context.Context, t *target, ep *endpoint, hostKey string, ch *challenge, repo, rejected string) (token, error) {
	scope := ch.scopeFor(repo)
	// A line feed can be part of none of these.
	key := t.name + "\n" + hostKey + "\n" + ch.scheme + "\n" + ch.realm + "\n" + ch.service + "\n" + scope + "\n" + repo
	if ep != nil && ep.credentials == nil {
		key += "\nanonymous"
	}
	if tok, ok := c.tokens.get(key, nil); ok && time.Now().Before(tok.expires) && (rejected == "" || tok.header != rejected) {
		return *tok, nil
	}
	c.mu.Lock()
	call := c.pending[key]
	if call == nil {
		call = &tokenCall{done: make(chan struct{}), err: errClosed}
		c.pending[key] = call
		c.mu.Unlock()
		if !c.spawn(func() { c.fetchToken(key, call, t, ep, ch, scope, repo) }) {
			close(call.done) // err is errClosed
		}
	} else {
		c.mu.Unlock()
	}
	select {
	case <-ctx.Done():
		return token{}, fmt.Errorf("origin: waiting for a token for %s: %w", hostKey, ctx.Err())
	case <-call.done:
	}
	if call.err != nil {
		return token{}, call.err
	}
	if call.token.header == rejected {
		return token{}, nil
	}
	return *call.token, nil
}

func (c *Client) fetchToken(key string, call *tokenCall, t *target, ep *endpoint, ch *challenge, scope, repo string) {
	ctx, cancel := context.WithTimeout(c.ctx, tokenTimeout)
	defer cancel()
	call.token, call.err = c.newToken(ctx, t, ep, ch, scope, repo)
	if call.err == nil {
		c.tokens.set(key, call.token)
	}
	c.mu.Lock()
	delete(c.pending, key)
	c.mu.Unlock()
	close(call.done)
}

// newToken asks the keychain, and for Bearer the token server.
func (c *Client) newToken(ctx context.Context, t *target, ep *endpoint, ch *challenge, scope, repo string) (*token, error) {
	cfg := authn.AuthConfig{}
	if ep != nil {
		cfg = c.credentials(ctx, t, ep, repo)
	}
	auth := authn.Anonymous
	if cfg != (authn.AuthConfig{}) {
		auth = authn.FromConfig(cfg)
	}
	now := time.Now()
	switch {
	case cfg.RegistryToken != "":
		return &token{"Bearer " + cfg.RegistryToken, now.Add(passwordLife), true}, nil
	case ch.scheme == "basic" && cfg.Username != "" && cfg.Password != "":
		pair := base64.StdEncoding.EncodeToString([]byte(cfg.Username + ":" + cfg.Password))
		return &token{"Basic " + pair, now.Add(passwordLife), true}, nil
	case ch.scheme == "basic" && cfg.Auth != "":
		return &token{"Basic " + cfg.Auth, now.Add(passwordLife), true}, nil
	case ch.scheme == "basic":
		return &token{"", now.Add(passwordLife), false}, nil
	}
	k := kindToken
	if ep != nil && ep.credentials == nil {
		k = kindProbe // see Client.Anybody
	}
	answer, err := c.exchangeToken(ctx, t, k, auth, ch, scope)
	if err != nil {
		return nil, err
	}
	life := time.Duration(answer.ExpiresIn) * time.Second
	if life <= 0 {
		life = defaultTokenLife
	}
	// Not used in its last tenth: it has to last until the origin looks at it.
	header := answer.Token
	if answer.AccessToken != "" {
		header = answer.AccessToken
	}
	return &token{"Bearer " + header, now.Add(life - life/10), auth != authn.Anonymous}, nil
}

// exchangeToken speaks to the token server: GET with the credentials as Basic
// authentication, or POST (OAuth2) with an identity token, falling back to GET.
func (c *Client) exchangeToken(ctx context.Context, t *target, k kind, auth authn.Authenticator, ch *challenge, scope string) (*transport.Token, error) {
	op := "token for " + t.name
	realm, err := url.Parse(ch.realm)
	if err != nil {
		return nil, &Error{Status: http.StatusBadGateway, Code: CodeUnauthorized, Message: op + ": malformed realm", final: true}
	}
	if why := t.checkURL(realm); why != "" {
		return nil, c.denied(t.name, realm.Host, why, t.remedy(realm))
	}
	// Exchange refuses realms at private addresses that are written out, unless
	// they are the registry's own. Our policy, which RoundTrip asks, knows
	// better (it looks at names and what they resolve to, and knows whom the
	// operator trusts), so that Exchange is told that the realm is the registry.
	reg, err := name.NewRegistry(realm.Host)
	if err != nil {
		return nil, &Error{Status: http.StatusBadGateway, Code: CodeUnauthorized, Message: op, final: true, err: err}
	}
	answer, err := transport.Exchange(ctx, reg, auth, tokenTransport{c, t, k}, []string{scope}, &transport.Challenge{
		Scheme:     "bearer",
		Parameters: map[string]string{"realm": ch.realm, "service": ch.service},
		Insecure:   t.plain,
	})
	if err == nil {
		return answer, nil
	}
	var (
		own    *Error
		denied *DeniedError
		status *transport.Error
	)
	switch {
	case errors.As(err, &own):
		return nil, own
	case errors.As(err, &denied):
		return nil, denied
	case errors.As(err, &status):
		e := &Error{
			Status: status.StatusCode, Code: kindToken.code(status.StatusCode),
			Message: fmt.Sprintf("%s: the token server %s answered %d", op, realm.Host, status.StatusCode),
		}
		if status.StatusCode == http.StatusTooManyRequests || status.StatusCode >= 500 {
			e.unreachable = true
		} else {
			e.final = true
		}
		if status.StatusCode == http.StatusNotFound || status.StatusCode == http.StatusBadRequest {
			// Not the content is missing, but a way to be let in.
			e.Status, e.Code = http.StatusUnauthorized, CodeUnauthorized
		}
		return nil, e
	case ctx.Err() != nil:
		return nil, &Error{Status: http.StatusGatewayTimeout, Code: CodeUnavailable, Message: op, unreachable: true, err: ctx.Err()}
	}
	// Exchange quotes a body without a token in its message, which might be
	// something that only looks like none.
	return nil, &Error{Status: http.StatusBadGateway, Code: CodeUnauthorized, Message: op + ": the answer of the token server " + realm.Host + " holds no token"}
}

// tokenTransport sends requests to token servers, under the same policy, breaker
// and timeouts as all others.
type tokenTransport struct {
	c *Client
	t *target
	k kind
}

// RoundTrip implements http.RoundTripper.
func (tt tokenTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	// A RoundTripper must not change the request that it is given.
	return tt.c.exchange(req.Context(), tt.t, tt.k, req.Clone(req.Context()), time.Time{})
}

// credentials asks the keychain, under each name that it may know the endpoint
// by. A keychain that fails is logged, and passes for one that has nothing:
// a broken helper must not stop pulls of public images. Neither must one that
// hangs, whose process cannot be ended from here: it is left alone with its
// goroutine.
func (c *Client) credentials(ctx context.Context, t *target, ep *endpoint, repo string) authn.AuthConfig {
	found := make(chan authn.AuthConfig, 1)
	go func() {
		for _, registry := range ep.credentials {
			cfg, err := c.ask(ctx, resource{registry, repo})
			if err != nil {
				c.opts.Logger.Warn("credentials cannot be read", "origin", t.name, "err", err)
			} else if cfg != (authn.AuthConfig{}) {
				found <- cfg
				return
			}
		}
		found <- authn.AuthConfig{}
	}()
	// Half of the time is the token server's.
	patience := time.NewTimer(tokenTimeout / 2)
	defer patience.Stop()
	select {
	case cfg := <-found:
		return cfg
	case <-ctx.Done():
	case <-patience.C:
		c.opts.Logger.Warn("credentials cannot be read", "origin", t.name, "err", "the keychain does not answer")
	}
	return authn.AuthConfig{}
}

// ask asks the keychain under one name.
func (c *Client) ask(ctx context.Context, r resource) (authn.AuthConfig, error) {
	auth, err := authn.Resolve(ctx, c.opts.Keychain, r)
	if err != nil {
		return authn.AuthConfig{}, err
	}
	cfg, err := authn.Authorization(ctx, auth)
	if err != nil || cfg == nil {
		return authn.AuthConfig{}, err
	}
	return *cfg, nil
}

// resource is what the keychain is asked for.
type resource struct{ registry, repository string }

// String implements authn.Resource.
func (r resource) String() string { return r.registry + "/" + r.repository }

// RegistryStr implements authn.Resource.
func (r resource) RegistryStr() string { return r.registry }
