package guest

import (
	"context"
	"errors"
	"testing"
)

// ForTest returns the guest for a test, which lies two folders below the root of the tree, and
// skips a short one, since whoever wants the guest boots it.
func ForTest(t testing.TB) *Image {
	t.Helper()
	img, err := forTest(t, Build)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// NewerForTest is ForTest with BuildNewer. It skips the test where Debian has no such kernel.
func NewerForTest(t testing.TB) *Image {
	t.Helper()
	img, err := forTest(t, BuildNewer)
	if errors.Is(err, errNoPackage) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func forTest(t testing.TB, build func(context.Context, string, func(string)) (*Image, error)) (*Image, error) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots Linux")
	}
	return build(context.Background(), "../../"+Dir, func(s string) { t.Log(s) })
}
