package p2p

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/peercache/peercache/chunkindex"
)

const (
	keyBlockType   = "PRIVATE KEY" // PKCS #8, RFC 5208: openssl can read and write it
	maxKeyFileSize = 16 << 10
)

// LoadIdentity reads the node's private key from a PEM file (PKCS #8, Ed25519)
// and creates it with a new key, mode 0600, if there is none. The file appears
// whole or not at all; of several processes that create it at once all return
// the same key.
//
// An existing file that holds anything else is an error that names it, never
// replaced: a new identity orphans everything that peers know about this node.
func LoadIdentity(path string) (ed25519.PrivateKey, error) {
	key, err := readIdentity(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := createIdentity(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("p2p: creating identity: %w", err)
	}
	return readIdentity(path)
}

func readIdentity(path string) (ed25519.PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("p2p: reading identity: %w", err)
	}
	if info.Size() > maxKeyFileSize || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("p2p: identity %s is not a key file", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("p2p: reading identity: %w", err)
	}
	broken := func(why string) error {
		return fmt.Errorf("p2p: identity %s is broken (%s); restore it, or remove it to give this node a new identity", path, why)
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != keyBlockType || len(bytes.TrimSpace(rest)) > 0 {
		return nil, broken("not a single PEM " + keyBlockType)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, broken(err.Error())
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, broken(fmt.Sprintf("%T instead of an Ed25519 key", parsed))
	}
	return key, nil
}

// createIdentity writes the key to a temporary file and links it to its name:
// link, unlike rename, fails where another process was faster. File and
// directory are synced, so that a node that was seen by its peers keeps its name
// through a power cut.
func createIdentity(path string) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, ".identity-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	err = pem.Encode(tmp, &pem.Block{Type: keyBlockType, Bytes: der})
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// peerIDPrefix starts the libp2p peer ID of every Ed25519 key: an identity
// multihash (0x00) of 36 bytes, which are the protobuf of the public key: field
// 1, type Ed25519; field 2, 32 bytes.
// https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md
const peerIDPrefix = "\x00\x24\x08\x01\x12\x20"

// PeerID returns libp2p's peer ID of a node.
func PeerID(n chunkindex.NodeID) peer.ID { return peer.ID(peerIDPrefix + string(n[:])) }

// NodeOf is the inverse of [PeerID]. It reports false for a peer ID that is not
// that of an Ed25519 key, and thus no node's.
func NodeOf(p peer.ID) (n chunkindex.NodeID, ok bool) {
	if len(p) != len(peerIDPrefix)+len(n) || p[:len(peerIDPrefix)] != peerIDPrefix {
		return n, false
	}
	copy(n[:], p[len(peerIDPrefix):])
	return n, true
}
