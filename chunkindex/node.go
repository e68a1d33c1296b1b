package chunkindex

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
)

// NodeID identifies a node: its Ed25519 public key. libp2p derives the node's
// peer ID from the same key, so whoever holds a NodeID can verify what the node
// signed without asking anybody.
type NodeID [ed25519.PublicKeySize]byte

// String is the first eight hexadecimal digits: enough for a log line or a test
// failure. Use libp2p's peer ID where people must tell nodes apart for good.
func (n NodeID) String() string { return hex.EncodeToString(n[:4]) }

// IsZero reports whether n is the zero value, which is no node.
func (n NodeID) IsZero() bool { return n == NodeID{} }

// Compare orders nodes by their bytes.
func (n NodeID) Compare(o NodeID) int { return bytes.Compare(n[:], o[:]) }
