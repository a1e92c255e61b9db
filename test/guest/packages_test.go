package guest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeApt puts an apt in PATH that knows some packages: stanzas by what is asked for, and one content for all downloads.
func fakeApt(t *testing.T, stanzas map[string]string, content string) {
	t.Helper()
	dir := t.TempDir()
	for name, stanza := range stanzas {
		if err := os.WriteFile(filepath.Join(dir, "stanza-"+name), []byte(stanza), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "content"), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{
		"apt-cache": `cat "$here/stanza-$3" 2>/dev/null || { echo "E: No packages found" >&2; exit 100; }`,
		"apt-get":   `cp "$here/content" "${2%%=*}_1_amd64.deb"`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\nhere="+dir+"\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func stanza(p Package, depends string) string {
	return fmt.Sprintf("Package: %s\nVersion: %s\nDepends: %s\nDescription: a package\n with a longer description: see there\nSHA256: %s\n\nPackage: another\n", p.Name, p.Version, depends, p.SHA256)
}

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

func TestFetch(t *testing.T) {
	const content = "a package's bytes"
	pinned := Package{"linux-image-1-amd64", "1.2-3", sum(content)}
	newer := Package{"linux-image-2-amd64", "2.0-1", sum(content)}
	src := source{pinned, "linux-image-amd64"}
	meta := stanza(Package{"linux-image-amd64", "2.0-1", sum("meta")}, "linux-image-2-amd64 (= 2.0-1), something")

	fetch := func(t *testing.T, dir string, src source) (Package, string, error) {
		t.Helper()
		var said []string
		file, p, err := src.fetch(context.Background(), dir, func(s string) { said = append(said, s) })
		if err == nil {
			if b, err := os.ReadFile(file); err != nil || string(b) != content {
				t.Errorf("%s holds %q, %v", file, b, err)
			}
		}
		left, _ := filepath.Glob(filepath.Join(dir, "download-*"))
		if len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		return p, strings.Join(said, "\n"), err
	}

	t.Run("pinned, and then from the cache", func(t *testing.T) {
		dir := t.TempDir()
		fakeApt(t, map[string]string{"linux-image-1-amd64=1.2-3": stanza(pinned, "")}, content)
		p, said, err := fetch(t, dir, src)
		if err != nil || p != pinned || !strings.Contains(said, "downloading") {
			t.Errorf("%v, %q, %v", p, said, err)
		}
		fakeApt(t, nil, "")
		if p, said, err := fetch(t, dir, src); err != nil || p != pinned || said != "" {
			t.Errorf("from the cache: %v, %q, %v", p, said, err)
		}
		// What was damaged is fetched again.
		if err := os.WriteFile(filepath.Join(dir, pinned.file()), []byte("damaged"), 0o644); err != nil {
			t.Fatal(err)
		}
		fakeApt(t, map[string]string{"linux-image-1-amd64=1.2-3": stanza(pinned, "")}, content)
		if _, said, err := fetch(t, dir, src); err != nil || !strings.Contains(said, "downloading") {
			t.Errorf("after damage: %q, %v", said, err)
		}
	})
	t.Run("gone from the archive", func(t *testing.T) {
		fakeApt(t, map[string]string{"linux-image-amd64": meta, "linux-image-2-amd64": stanza(newer, "")}, content)
		p, said, err := fetch(t, t.TempDir(), src)
		if err != nil || p != newer || !strings.Contains(said, "linux-image-1-amd64 1.2-3 is not in apt's index: using linux-image-2-amd64 2.0-1 from there (SHA-256 "+newer.SHA256) {
			t.Errorf("%v, %q, %v", p, said, err)
		}
	})
	t.Run("the same version with another hash", func(t *testing.T) {
		other := pinned
		other.SHA256 = sum("rebuilt")
		fakeApt(t, map[string]string{"linux-image-1-amd64=1.2-3": stanza(other, ""), "linux-image-amd64": meta, "linux-image-2-amd64": stanza(newer, "")}, content)
		if p, said, err := fetch(t, t.TempDir(), src); err != nil || p != newer {
			t.Errorf("%v, %q, %v", p, said, err)
		}
	})
	t.Run("a download that is not what the index says", func(t *testing.T) {
		fakeApt(t, map[string]string{"linux-image-1-amd64=1.2-3": stanza(pinned, "")}, "something else")
		if _, _, err := fetch(t, t.TempDir(), src); err == nil || !strings.Contains(err.Error(), pinned.SHA256) || !strings.Contains(err.Error(), sum("something else")) {
			t.Errorf("error %v, want one with both hashes", err)
		}
	})
	t.Run("no index", func(t *testing.T) {
		fakeApt(t, nil, content)
		if _, _, err := fetch(t, t.TempDir(), src); !errors.Is(err, errNoPackage) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a meta package of something else", func(t *testing.T) {
		fakeApt(t, map[string]string{"linux-image-amd64": stanza(Package{"linux-image-amd64", "3", sum("")}, "nothing")}, content)
		if _, _, err := fetch(t, t.TempDir(), src); err == nil || !strings.Contains(err.Error(), "depends on no kernel image") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("no apt", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		if _, _, err := fetch(t, t.TempDir(), src); err == nil || !strings.Contains(err.Error(), "make setup") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		fakeApt(t, map[string]string{"linux-image-1-amd64=1.2-3": stanza(pinned, "")}, content)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, _, err := src.fetch(ctx, t.TempDir(), func(string) {}); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
}
