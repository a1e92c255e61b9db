package ecc

import (
	"math/bits"
	"math/rand/v2"
	"testing"
)

func flip(data uint64, check uint8, bit int) (uint64, uint8) {
	if bit < DataBits {
		return data ^ 1<<bit, check
	}
	return data, check ^ 1<<(bit-DataBits)
}

func TestColumnsAreDistinctAndOdd(t *testing.T) {
	seen := map[uint8]bool{}
	var weight [CheckBits]int
	for i, c := range columns {
		if seen[c] || bits.OnesCount8(c)%2 == 0 {
			t.Errorf("column %d is %08b", i, c)
		}
		seen[c] = true
		for b := range weight {
			weight[b] += int(c >> b & 1)
		}
	}
	for b, w := range weight {
		if w != weight[0] {
			t.Errorf("check bit %d covers %d bits, check bit 0 %d", b, w, weight[0])
		}
	}
}

func TestEveryErrorOfOneAndTwoBits(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		data := r.Uint64()
		check := Encode(data)
		if v, _ := Decode(data, check); v != Good {
			t.Fatalf("%#x: %v", data, v)
		}
		for i := range Bits {
			d, c := flip(data, check, i)
			if v, bit := Decode(d, c); v != Corrected || bit != i {
				t.Fatalf("bit %d wrong: %v, bit %d", i, v, bit)
			}
			for j := range i {
				d, c := flip(d, c, j)
				if v, _ := Decode(d, c); v != Uncorrectable {
					t.Fatalf("bits %d and %d wrong: %v", i, j, v)
				}
			}
		}
	}
}

// Three wrong bits are never good; whether they are miscorrected depends on which they are.
func TestThreeBits(t *testing.T) {
	var wrong, detected int
	for i := range Bits {
		for j := range i {
			for k := range j {
				switch v, bit := Judge(columns[i] ^ columns[j] ^ columns[k]); {
				case v == Good:
					t.Fatalf("bits %d, %d, %d pass", i, j, k)
				case v == Corrected:
					if bit == i || bit == j || bit == k {
						t.Fatalf("bits %d, %d, %d: %d corrected, which is one of them", i, j, k, bit)
					}
					wrong++
				default:
					detected++
				}
			}
		}
	}
	if total := wrong + detected; total != 59640 || wrong*100/total < 40 || wrong*100/total > 70 {
		t.Errorf("%d miscorrected, %d detected", wrong, detected)
	}
	// And four can pass.
	passes := false
	for i := range Bits {
		for j := range i {
			v, k := Judge(columns[0] ^ columns[i] ^ columns[j])
			passes = passes || v == Corrected && k != 0 && k != i && k != j
		}
	}
	if !passes {
		t.Error("no four bits pass")
	}
}
