package report

import (
	"context"
	"fmt"
	"image"
	_ "image/png"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// browser returns a function that runs Chromium on a page, or skips the test.
func browser(t *testing.T) func(page string, flags ...string) string {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Skip("no Chromium here (apt-get install chromium): the page was not looked at in a browser")
	}
	if testing.Short() {
		t.Skip("starting a browser takes seconds")
	}
	dir := t.TempDir()
	common := []string{"--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--user-data-dir=" + filepath.Join(dir, "profile")}
	if out, err := exec.Command(path, append(common, "--dump-dom", "about:blank")...).CombinedOutput(); err != nil {
		t.Skipf("%s does not run here: %v: %s", path, err, out)
	}
	return func(page string, flags ...string) string {
		t.Helper()
		file := filepath.Join(dir, "page.html")
		if err := os.WriteFile(file, []byte(page), 0o666); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		args := append(slices.Clone(common), flags...)
		cmd := exec.CommandContext(ctx, path, append(args, (&url.URL{Scheme: "file", Path: file}).String())...)
		var errs strings.Builder
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, errs.String())
		}
		return string(out)
	}
}

// TestInBrowser: the browser sees in the page what is in it, executes nothing of what the
// guest said, and draws it light and dark.
func TestInBrowser(t *testing.T) {
	run := browser(t)
	n := 0
	page := pageOf(t, story(func() string { n++; return fmt.Sprintf("%s.%d", evil[n%len(evil)], n) }))
	dom := run(page, "--dump-dom")
	for _, e := range []string{"<circle", "<path", "<rect", "<tr", "<section", "<td"} {
		if want, got := strings.Count(page, e), strings.Count(dom, e); got != want {
			t.Errorf("the browser sees %d of %s, the page has %d", got, e, want)
		}
	}
	for _, e := range []string{"<script", "<img", "<iframe"} {
		if strings.Contains(strings.ToLower(dom), e) {
			t.Errorf("the browser sees %s", e)
		}
	}
	if strings.Contains(dom, "<title>evil") {
		t.Error("a script of the guest ran")
	}
	for _, c := range []struct {
		scheme string
		dark   bool
	}{{"1", false}, {"0", true}} {
		shot := filepath.Join(t.TempDir(), "shot.png")
		run(page, "--blink-settings=preferredColorScheme="+c.scheme, "--window-size=1000,1600", "--screenshot="+shot)
		f, err := os.Open(shot)
		if err != nil {
			t.Fatal(err)
		}
		img, _, err := image.Decode(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		if r, g, b, _ := img.At(2, 2).RGBA(); r+g+b < 3*0x8000 != c.dark {
			t.Errorf("dark %v: the page is #%02x%02x%02x", c.dark, r>>8, g>>8, b>>8)
		}
		seen := map[[3]uint32]bool{}
		for y := 0; y < img.Bounds().Dy(); y += 2 {
			for x := 0; x < img.Bounds().Dx(); x += 2 {
				r, g, b, _ := img.At(x, y).RGBA()
				seen[[3]uint32{r >> 12, g >> 12, b >> 12}] = true
			}
		}
		if len(seen) < 20 {
			t.Errorf("dark %v: only %d colors: nothing is drawn", c.dark, len(seen))
		}
	}
}
