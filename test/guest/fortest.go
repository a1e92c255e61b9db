package guest

import (
	"context"
	"testing"
)

// ForTest returns the guest for a test, which lies two folders below the root of the tree, and
// skips a short one, since whoever wants the guest boots it.
func ForTest(t testing.TB) *Image {
	t.Helper()
	if testing.Short() {
		t.Skip("boots Linux")
	}
	img, err := Build(context.Background(), "../../"+Dir, func(s string) { t.Log(s) })
	if err != nil {
		t.Fatal(err)
	}
	return img
}
