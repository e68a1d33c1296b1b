package chunkindex_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/peercache/peercache/chunkindex"
)

// content returns n bytes that differ from place to place.
func content(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return data
}

func TestBufferTakesOneChunkAndNoMore(t *testing.T) {
	data := content(300_000)
	r := bytes.NewReader(append(bytes.Clone(data), "of the next chunk"...))
	b := chunkindex.NewBuffer(len(data), nil)
	n, err := b.ReadFrom(r)
	if err != nil || n != int64(len(data)) || !b.Full() || b.Len() != len(data) {
		t.Fatalf("read %d, full %t: %v", n, b.Full(), err)
	}
	if !bytes.Equal(b.Bytes(), data) || b.Sum() != sha256.Sum256(data) {
		t.Fatal("the buffer holds other bytes than it was given, or sums them wrongly")
	}
	if r.Len() != len("of the next chunk") {
		t.Fatalf("read into the next chunk: %d bytes left", r.Len())
	}
	if n, err := b.ReadFrom(r); n != 0 || err != nil {
		t.Fatalf("a full buffer read %d: %v", n, err)
	}
}

func TestBufferOfShortInput(t *testing.T) {
	data := content(200_000)
	for _, tt := range []struct {
		name string
		r    io.Reader
		want error
	}{
		{"ends", bytes.NewReader(data[:150_000]), io.ErrUnexpectedEOF},
		{"ends with its data", iotest.DataErrReader(bytes.NewReader(data[:150_000])), io.ErrUnexpectedEOF},
		{"fails", io.MultiReader(bytes.NewReader(data[:150_000]), iotest.ErrReader(io.ErrClosedPipe)), io.ErrClosedPipe},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := chunkindex.NewBuffer(len(data), nil)
			n, err := b.ReadFrom(tt.r)
			if !errors.Is(err, tt.want) || n != 150_000 || b.Full() || b.Len() != 150_000 {
				t.Fatalf("read %d, full %t: %v, want %v", n, b.Full(), err, tt.want)
			}
			// A transfer that broke off may go on where it ended.
			if n, err := b.ReadFrom(bytes.NewReader(data[150_000:])); err != nil || n != 50_000 {
				t.Fatalf("resumed with %d: %v", n, err)
			}
			if !b.Full() || b.Sum() != sha256.Sum256(data) {
				t.Fatal("the resumed chunk sums to something else")
			}
		})
	}
}

func TestBufferErrorWithTheLastBytesIsNone(t *testing.T) {
	data := content(1000)
	b := chunkindex.NewBuffer(len(data), nil)
	if n, err := b.ReadFrom(iotest.DataErrReader(bytes.NewReader(data))); err != nil || n != 1000 {
		t.Fatalf("read %d: %v", n, err)
	}
}

func TestBufferRecycles(t *testing.T) {
	big, small := content(500_000), bytes.Repeat([]byte("x"), 1234)
	b := chunkindex.NewBuffer(len(big), nil)
	if _, err := b.ReadFrom(bytes.NewReader(big[:400_000])); err == nil {
		t.Fatal("a short chunk gave no error")
	}
	memory := &b.Bytes()[0]
	again := chunkindex.NewBuffer(len(small), b)
	if again.Full() || again.Len() != 0 {
		t.Fatalf("a recycled buffer holds %d bytes", again.Len())
	}
	if _, err := again.ReadFrom(bytes.NewReader(small)); err != nil {
		t.Fatal(err)
	}
	if &again.Bytes()[0] != memory {
		t.Error("memory was not reused")
	}
	if again.Sum() != sha256.Sum256(small) || !bytes.Equal(again.Bytes(), small) {
		t.Fatal("the old chunk shows in the new one")
	}
	grown := chunkindex.NewBuffer(1_000_000, again)
	if n, err := grown.ReadFrom(bytes.NewReader(content(1_000_000))); err != nil || n != 1_000_000 {
		t.Fatalf("a buffer that was too small to recycle read %d: %v", n, err)
	}
}

func TestBufferOfNothing(t *testing.T) {
	b := chunkindex.NewBuffer(0, nil)
	if n, err := b.ReadFrom(iotest.ErrReader(errors.New("touched"))); n != 0 || err != nil || !b.Full() || b.Sum() != sha256.Sum256(nil) {
		t.Fatalf("read %d, full %t: %v", n, b.Full(), err)
	}
}

func TestBufferSumsWhateverThePieces(t *testing.T) {
	data := content(400_000)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, len(data)).Draw(t, "length")
		b := chunkindex.NewBuffer(n, nil)
		for !b.Full() {
			piece := data[b.Len():min(b.Len()+rapid.IntRange(1, n).Draw(t, "piece"), n)]
			var r io.Reader = bytes.NewReader(piece)
			if rapid.Bool().Draw(t, "dribbles") {
				r = iotest.HalfReader(r)
			}
			_, err := b.ReadFrom(r)
			if b.Full() != (err == nil) {
				t.Fatalf("full %t, error %v", b.Full(), err)
			}
			if b.Sum() != sha256.Sum256(data[:b.Len()]) {
				t.Fatalf("wrong sum of the first %d bytes", b.Len())
			}
		}
	})
}
