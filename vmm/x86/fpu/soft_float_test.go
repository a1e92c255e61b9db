package fpu

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
	"testing"
)

// What these instructions compute is part of every recording: it must not change, with no host and no compiler.
func TestApproximationsAreTheSameEverywhere(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	h := fnv.New64a()
	for range 10000 {
		v := math.Float32frombits(random.Uint32())
		for _, sqrt := range []bool{false, true} {
			r := approxOne(v, sqrt)
			h.Write([]byte{byte(r), byte(r >> 8), byte(r >> 16), byte(r >> 24)})
		}
	}
	if got := h.Sum64(); got != 0x257069115c09ad13 {
		t.Errorf("%#x", got)
	}
}
