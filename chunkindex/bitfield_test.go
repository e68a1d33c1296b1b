package chunkindex_test

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/peercache/peercache/chunkindex"
)

func TestBitfieldEncodingIsBEP3s(t *testing.T) {
	b := chunkindex.NewBitfield(10)
	b.Set(0)
	b.Set(7)
	b.Set(9)
	if got, want := b.Append([]byte{0xee}), []byte{0xee, 0b10000001, 0b01000000}; !bytes.Equal(got, want) {
		t.Fatalf("encoded %08b, want %08b", got, want)
	}
}

func TestDecodeBitfieldRefusesWhatItWouldNotEncode(t *testing.T) {
	for _, tt := range []struct {
		name string
		data []byte
		n    int
	}{
		{"negative", nil, -1},
		{"too short", []byte{0}, 9},
		{"too long", []byte{0, 0}, 8},
		{"not empty for nothing", []byte{0}, 0},
		{"spare bit", []byte{0, 1}, 15},
		{"spare bit of the last word", append(make([]byte, 8), 1), 65},
		{"length that overflows", []byte{0}, math.MaxInt},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := chunkindex.DecodeBitfield(tt.data, tt.n); !errors.Is(err, chunkindex.ErrBitfield) {
				t.Fatalf("got %v, want ErrBitfield", err)
			}
		})
	}
}

func TestBitfieldOutsideOfItsRange(t *testing.T) {
	b := chunkindex.NewBitfield(65)
	for _, i := range []int{-1, 65, 127, 128, math.MaxInt, math.MinInt} {
		if b.Set(i) || b.Has(i) || b.Clear(i) {
			t.Errorf("%d is in a set of numbers below 65", i)
		}
	}
	if b.Count() != 0 {
		t.Fatalf("counts %d", b.Count())
	}
	if got := b.Next(-5); got != -1 {
		t.Errorf("Next in an empty set is %d", got)
	}
	if got := b.NextClear(math.MinInt); got != 0 {
		t.Errorf("NextClear in an empty set is %d", got)
	}
	var zero chunkindex.Bitfield
	if zero.Next(0) != -1 || zero.NextClear(0) != -1 || !zero.Full() || len(zero.Append(nil)) != 0 {
		t.Error("the zero Bitfield is not the empty set of nothing")
	}
}

// TestBitfieldIsASet runs random operations on a Bitfield and on a map, and
// compares every answer.
func TestBitfieldIsASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 300).Draw(t, "n")
		b, model := chunkindex.NewBitfield(n), map[int]bool{}
		number := rapid.IntRange(-2, n+70)
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				i := number.Draw(t, "i")
				want := i >= 0 && i < n && !model[i]
				if b.Set(i) != want {
					t.Fatalf("Set(%d) != %t", i, want)
				}
				if want {
					model[i] = true
				}
			},
			"set a run": func(t *rapid.T) {
				for i, end := rapid.IntRange(0, n).Draw(t, "from"), rapid.IntRange(0, n).Draw(t, "to"); i < end; i++ {
					b.Set(i)
					model[i] = true
				}
			},
			"clear": func(t *rapid.T) {
				i := number.Draw(t, "i")
				if b.Clear(i) != model[i] {
					t.Fatalf("Clear(%d) != %t", i, model[i])
				}
				delete(model, i)
			},
			"union": func(t *rapid.T) {
				o := chunkindex.NewBitfield(n)
				for _, i := range rapid.SliceOf(number).Draw(t, "others") {
					if o.Set(i) {
						model[i] = true
					}
				}
				before := o.Append(nil)
				b.Union(o)
				if !bytes.Equal(o.Append(nil), before) {
					t.Fatal("Union changed its argument")
				}
			},
			"subtract": func(t *rapid.T) {
				o := chunkindex.NewBitfield(n)
				for _, i := range rapid.SliceOf(number).Draw(t, "others") {
					if o.Set(i) {
						delete(model, i)
					}
				}
				before := o.Append(nil)
				b.Subtract(o)
				if !bytes.Equal(o.Append(nil), before) {
					t.Fatal("Subtract changed its argument")
				}
			},
			"reset": func(t *rapid.T) {
				b.Reset(n)
				clear(model)
			},
			"": func(t *rapid.T) {
				if b.Count() != len(model) || b.Len() != n || b.Full() != (len(model) == n) {
					t.Fatalf("counts %d of %d, full %t; want %d", b.Count(), b.Len(), b.Full(), len(model))
				}
				from := number.Draw(t, "from")
				next, clear := -1, -1
				for i := n - 1; i >= max(from, 0); i-- {
					if model[i] {
						next = i
					} else {
						clear = i
					}
				}
				if got := b.Next(from); got != next {
					t.Fatalf("Next(%d) = %d, want %d", from, got, next)
				}
				if got := b.NextClear(from); got != clear {
					t.Fatalf("NextClear(%d) = %d, want %d", from, got, clear)
				}
				for i := -1; i <= n; i++ {
					if b.Has(i) != model[i] {
						t.Fatalf("Has(%d) != %t", i, model[i])
					}
				}
				back, err := chunkindex.DecodeBitfield(b.Append(nil), n)
				if err != nil {
					t.Fatal(err)
				}
				if back.Count() != b.Count() || !bytes.Equal(back.Append(nil), b.Append(nil)) {
					t.Fatal("the round trip changed the set")
				}
			},
		})
	})
}

func TestFullBitfield(t *testing.T) {
	for _, n := range []int{0, 1, 63, 64, 65, 128, 1000} {
		b := chunkindex.FullBitfield(n)
		if !b.Full() || b.Count() != n || b.NextClear(0) != -1 {
			t.Errorf("FullBitfield(%d) lacks %d", n, b.NextClear(0))
		}
		if back, err := chunkindex.DecodeBitfield(b.Append(nil), n); err != nil || !back.Full() {
			t.Errorf("FullBitfield(%d) doesn't survive the round trip: %v", n, err)
		}
	}
}

func TestCloneSharesNothing(t *testing.T) {
	a := chunkindex.NewBitfield(100)
	a.Set(3)
	b := a.Clone()
	b.Set(4)
	a.Clear(3)
	if a.Has(4) || !b.Has(3) || a.Count() != 0 || b.Count() != 2 {
		t.Fatal("a clone and its original see each other's changes")
	}
}

func FuzzDecodeBitfield(f *testing.F) {
	f.Add([]byte{}, 0)
	f.Add([]byte{0x80}, 1)
	f.Add([]byte{0xff, 0xc0}, 10)
	f.Add([]byte{0xff, 0xff}, 10)
	f.Add(make([]byte, 8192), 65536)
	f.Fuzz(func(t *testing.T, data []byte, n int) {
		b, err := chunkindex.DecodeBitfield(data, n)
		if err != nil {
			if !errors.Is(err, chunkindex.ErrBitfield) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if b.Len() != n {
			t.Fatalf("length %d, want %d", b.Len(), n)
		}
		if got := b.Append(nil); !bytes.Equal(got, data) {
			t.Fatalf("%x became %x", data, got)
		}
		count := 0
		for i := b.Next(0); i >= 0; i = b.Next(i + 1) {
			if !b.Has(i) {
				t.Fatalf("Next found %d, which is not in the set", i)
			}
			count++
		}
		if count != b.Count() {
			t.Fatalf("counts %d, holds %d", b.Count(), count)
		}
	})
}

// TestBitfieldSets compares what is done with two sets at once with the same for each
// number.
func TestBitfieldSets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 300).Draw(t, "n")
		draw := func(name string) chunkindex.Bitfield {
			b := chunkindex.NewBitfield(n)
			for _, i := range rapid.SliceOf(rapid.IntRange(0, 299)).Draw(t, name) {
				b.Set(i)
			}
			return b
		}
		a, b := draw("a"), draw("b")
		both := a.Clone()
		both.Intersect(b)
		var rest chunkindex.Bitfield
		rest.Reset(n)
		rest.Complement(a)
		if rest.Count() != n-a.Count() {
			t.Fatalf("Complement of %d of %d counts %d", a.Count(), n, rest.Count())
		}
		common, covers := false, true
		for i := range n {
			if both.Has(i) != (a.Has(i) && b.Has(i)) {
				t.Fatalf("%d: in both is %t", i, both.Has(i))
			}
			if rest.Has(i) == a.Has(i) {
				t.Fatalf("%d: in the complement is %t", i, rest.Has(i))
			}
			common = common || a.Has(i) && b.Has(i)
			covers = covers && (a.Has(i) || !b.Has(i))
		}
		if a.Intersects(b) != common || both.Count() > 0 != common {
			t.Fatalf("Intersects is %t, %d in both", a.Intersects(b), both.Count())
		}
		if a.Covers(b) != covers || (chunkindex.Bitfield{}).Covers(b) != (b.Count() == 0) {
			t.Fatalf("Covers is %t", a.Covers(b))
		}
		first, end := rapid.IntRange(-2, n+70).Draw(t, "first"), rapid.IntRange(-2, n+70).Draw(t, "end")
		in := 0
		for i := first; i < end; i++ {
			if a.Has(i) {
				in++
			}
		}
		if got := a.CountIn(first, end); got != in {
			t.Fatalf("CountIn(%d, %d) is %d, want %d", first, end, got, in)
		}
		most := rapid.IntRange(-1, n+1).Draw(t, "most")
		lowest := a.Clone()
		lowest.Truncate(most)
		kept := 0
		for i := a.Next(0); i >= 0; i = a.Next(i + 1) {
			if kept++; lowest.Has(i) != (kept <= most) {
				t.Fatalf("%d of %d, truncated to %d, is there: %t", kept, a.Count(), most, lowest.Has(i))
			}
		}
		if lowest.Count() != min(max(most, 0), a.Count()) {
			t.Fatalf("%d of %d are left of %d", lowest.Count(), most, a.Count())
		}
	})
}

// What looks at a part of a set, or at a set in a row of words, says what one gets chunk by chunk.
func TestBitfieldParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 200).Draw(t, "n")
		number := rapid.IntRange(-2, n+70)
		draw := func(name string) chunkindex.Bitfield {
			b := chunkindex.NewBitfield(n)
			for _, i := range rapid.SliceOfN(number, 0, 60).Draw(t, name) {
				b.Set(i)
			}
			for i, end := number.Draw(t, name+" from"), number.Draw(t, name+" to"); i < end; i++ {
				b.Set(i)
			}
			return b
		}
		a, b := draw("a"), draw("b")
		first, end, nth := number.Draw(t, "first"), number.Draw(t, "end"), rapid.IntRange(1, n+3).Draw(t, "nth")

		clear, beyond := -1, -1
		left := nth
		for i := max(first, 0); i < n; i++ {
			if !a.Has(i) && left > 0 {
				if left--; left == 0 {
					clear = i
				}
			}
			if beyond < 0 && a.Has(i) && !b.Has(i) {
				beyond = i
			}
		}
		if got := a.NthClear(first, nth); got != clear {
			t.Errorf("NthClear(%d, %d) = %d, want %d", first, nth, got, clear)
		}
		if got := a.NextBeyond(b, first); got != beyond {
			t.Errorf("NextBeyond(b, %d) = %d, want %d", first, got, beyond)
		}
		part, want := a.Clone(), a.Clone()
		part.UnionIn(b, first, end)
		for i := max(first, 0); i < end; i++ {
			if b.Has(i) {
				want.Set(i)
			}
		}
		same := func(what string, got, want chunkindex.Bitfield) {
			if got.Count() != want.Count() || !bytes.Equal(got.Append(nil), want.Append(nil)) {
				t.Errorf("%s is %x with %d chunks, want %x with %d", what, got.Append(nil), got.Count(), want.Append(nil), want.Count())
			}
		}
		same("UnionIn", part, want)

		words := make([]uint64, 2*chunkindex.Words(n))
		row := words[chunkindex.Words(n):]
		moved := b.Clone()
		moved.MoveTo(row)
		same("what was moved", moved, b)
		if a.Meets(row) != a.Intersects(b) {
			t.Errorf("Meets is %t", a.Meets(row))
		}
		joined, union := a.Clone(), a.Clone()
		joined.Join(row)
		union.Union(b)
		same("Join", joined, union)
		moved.Set(first)
		joined = chunkindex.NewBitfield(n)
		joined.Join(row)
		same("what was set in the row", joined, moved)
		moved.MoveTo(words)
		same("what was moved again", moved, joined)
	})
}
