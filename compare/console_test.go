package compare

import (
	"math/rand/v2"
	"strings"
	"testing"
)

func TestAlign(t *testing.T) {
	for name, c := range map[string]struct {
		golden, faulty string
		added, removed int
		want           string // of the hunks
	}{
		"equal":           {"a\nb\n", "a\nb\n", 0, 0, ""},
		"both empty":      {"", "", 0, 0, ""},
		"time stamps":     {"[    1.000001] a\n[   12.5] b\n", "[    1.000002] a\n[   13.25] b\n", 0, 0, ""},
		"process numbers": {"hello: pid 113\nMCE: Killing hello:113 due\nsh[113]: x\n", "hello: pid 7\nMCE: Killing hello:8 due\nsh[9]: x\n", 0, 0, ""},
		"other numbers":   {"sum 113\n", "sum 114\n", 1, 1, "@@ -1,1 +1,1 @@\n-sum 113\n+sum 114\n"},
		"line ends":       {"a\r\nb\r\n", "a\nb\n", 0, 0, ""},
		"a line more":     {"1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1\n2\n3\n4\n5\nx\n6\n7\n8\n9\n", 1, 0, "@@ -3,6 +3,7 @@\n 3\n 4\n 5\n+x\n 6\n 7\n 8\n"},
		"nothing left":    {"a\nb\n", "", 0, 2, "@@ -1,2 +1,0 @@\n-a\n-b\n"},
		"cut off":         {"a\nb", "a\n", 0, 1, "@@ -1,2 +1,1 @@\n a\n-b\n"},
		"two hunks": {"x\n1\n2\n3\n4\n5\n6\n7\ny\n", "1\n2\n3\n4\n5\n6\n7\n", 0, 2,
			"@@ -1,4 +1,3 @@\n-x\n 1\n 2\n 3\n@@ -6,4 +5,3 @@\n 5\n 6\n 7\n-y\n"},
		"one hunk": {"x\n1\n2\n3\n4\n5\n6\ny\n", "1\n2\n3\n4\n5\n6\n", 0, 2, "@@ -1,8 +1,6 @@\n-x\n 1\n 2\n 3\n 4\n 5\n 6\n-y\n"},
	} {
		t.Run(name, func(t *testing.T) {
			d := Align([]byte(c.golden), []byte(c.faulty))
			var got strings.Builder
			for i := range d.Hunks {
				got.WriteString(d.Hunks[i].Unified())
			}
			if d.Added != c.added || d.Removed != c.removed || got.String() != c.want || d.Equal != (c.want == "") {
				t.Errorf("%d added, %d removed, equal %v:\n%swant %d and %d:\n%s", d.Added, d.Removed, d.Equal, got.String(), c.added, c.removed, c.want)
			}
		})
	}
}

func TestFirstOutput(t *testing.T) {
	for _, c := range []struct {
		golden, faulty string
		want           OutputDiff
	}{
		{"1\n2\n3\n", "1\nx\n3\n", OutputDiff{2, 2, "2", "x"}},
		{"1\n2\n3\n4\n5\n", "0\n1\n2\n3\n4\n5\n", OutputDiff{1, 1, "1", "0"}},
		{"1\n2\n", "1\n", OutputDiff{2, 2, "2", ""}},
	} {
		d := Align([]byte(c.golden), []byte(c.faulty))
		if got := d.first(); got == nil || *got != c.want {
			t.Errorf("%q, %q: %+v, want %+v", c.golden, c.faulty, got, c.want)
		}
	}
}

// TestEditsAreShortest compares with the length of the longest common subsequence, by definition.
func TestEditsAreShortest(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		x, y := make([]string, r.IntN(9)), make([]string, r.IntN(9))
		for i := range x {
			x[i] = string(rune('a' + r.IntN(3)))
		}
		for i := range y {
			y[i] = string(rune('a' + r.IntN(3)))
		}
		lcs := make([][]int, len(x)+1)
		for i := range lcs {
			lcs[i] = make([]int, len(y)+1)
		}
		for i := range x {
			for j := range y {
				if lcs[i+1][j+1] = max(lcs[i][j+1], lcs[i+1][j]); x[i] == y[j] {
					lcs[i+1][j+1] = lcs[i][j] + 1
				}
			}
		}
		i, j, same := 0, 0, 0
		for _, e := range edits(x, y) {
			if e.i != i || e.j != j {
				t.Fatalf("%q, %q: %v", x, y, edits(x, y))
			}
			switch e.kind {
			case ' ':
				if x[i] != y[j] {
					t.Fatalf("%q, %q: %v", x, y, edits(x, y))
				}
				i, j, same = i+1, j+1, same+1
			case '-':
				i++
			case '+':
				j++
			}
		}
		if i != len(x) || j != len(y) || same != lcs[len(x)][len(y)] {
			t.Fatalf("%q, %q: %v has %d in common, not %d", x, y, edits(x, y), same, lcs[len(x)][len(y)])
		}
	}
}

func TestAlignOfConsolesThatHaveNothingInCommon(t *testing.T) {
	a := strings.Repeat("a\n", 3*maxEdits)
	b := strings.Repeat("b\n", 3*maxEdits)
	if d := Align([]byte(a), []byte(b)); d.Added != 3*maxEdits || d.Removed != 3*maxEdits {
		t.Errorf("%d added, %d removed", d.Added, d.Removed)
	}
}
