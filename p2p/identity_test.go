package p2p

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/peercache/peercache/chunkindex"
)

func TestIdentityPersists(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "identity.pem")
	// Several processes at once agree.
	keys := make([]ed25519.PrivateKey, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = LoadIdentity(path); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, k := range keys {
		if !k.Equal(keys[0]) {
			t.Fatal("two processes have two identities")
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestBrokenIdentityIsNamedAndKept(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(t.TempDir(), "good")
	if _, err := LoadIdentity(good); err != nil {
		t.Fatal(err)
	}
	pemBytes, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"empty":     {},
		"garbage":   []byte("garbage"),
		"cut":       pemBytes[:len(pemBytes)/2],
		"twice":     append(bytes.Clone(pemBytes), pemBytes...),
		"other key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		"flipped":   bytes.Replace(pemBytes, []byte("MC4CAQ"), []byte("MC5CAQ"), 1),
		"huge":      make([]byte, maxKeyFileSize+1),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "identity.pem")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := LoadIdentity(path)
			if err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("error %v", err)
			}
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, content) {
				t.Error("broken file was changed")
			}
		})
	}
	if _, err := LoadIdentity(filepath.Join(t.TempDir(), "no", "such", "directory")); err == nil {
		t.Error("no error without a directory")
	}
	if _, err := LoadIdentity(t.TempDir()); err == nil {
		t.Error("no error for a directory")
	}
}

func TestPeerIDs(t *testing.T) {
	for range 20 {
		priv, pub, err := crypto.GenerateEd25519Key(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		want, err := peer.IDFromPrivateKey(priv)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := pub.Raw()
		if err != nil {
			t.Fatal(err)
		}
		n := chunkindex.NodeID(raw)
		if got := PeerID(n); got != want {
			t.Errorf("PeerID = %s, want %s", got, want)
		}
		if back, ok := NodeOf(want); !ok || back != n {
			t.Errorf("NodeOf = %s, %t", back, ok)
		}
	}
	for _, p := range []peer.ID{"", "x", peer.ID(make([]byte, 38)), PeerID(chunkindex.NodeID{}) + "x"} {
		if _, ok := NodeOf(p); ok {
			t.Errorf("NodeOf(%x) is a node", string(p))
		}
	}
}
