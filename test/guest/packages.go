package guest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// Package is one Debian binary package.
type Package struct {
	Name, Version string
	SHA256        string // of the .deb
}

func (p Package) String() string { return p.Name + " " + p.Version }

// source is a package that the guest needs.
type source struct {
	pin Package
	// meta is the package that depends on what takes pin's place in a newer archive, if that has another name.
	meta string
}

// The sources. To pin newer versions: apt-cache show linux-image-amd64 names the
// package, and apt-cache show of that one tells its version and hash.
var (
	kernelSource = source{Package{"linux-image-6.1.0-56-amd64", "6.1.192-2",
		"a86e2049672f52354c4536a089203b6c82639420424d31c91cf31a181fd4d8f1"}, "linux-image-amd64"}
	cloudSource = source{Package{"linux-image-6.1.0-56-cloud-amd64", "6.1.192-2",
		"e7d02b943971edcb8790e256c02cfab3bca6c3d37c1bf25392a57c71300615ee"}, "linux-image-cloud-amd64"}
	newerSource = source{Package{"linux-image-6.12.117+deb12-cloud-amd64", "6.12.117-1~deb12u1",
		"5195b288dec79e2981d6b84457f38b7ce7310a2d702930ec7d07209c7f78ce37"}, "linux-image-6.12-cloud-amd64"}
	busyboxSource = source{Package{"busybox-static", "1:1.35.0-4+deb12u1+b1",
		"3d3fdbe91d4660c873e14b092c213fe81c1da6362daa236eb25d0171eb108744"}, ""}
)

// fetch returns the package's file in dir, downloading it if it is not there,
// and the package that it is: the pinned one, or what has taken its place.
func (s source) fetch(ctx context.Context, dir string, progress func(string)) (string, Package, error) {
	file := filepath.Join(dir, s.pin.file())
	if sum, err := hashFile(file); err == nil && sum == s.pin.SHA256 {
		return file, s.pin, nil
	}
	p, err := s.available(ctx)
	if err != nil {
		return "", Package{}, err
	}
	if p != s.pin {
		progress(fmt.Sprintf("%v is not in apt's index: using %v from there (SHA-256 %s)", s.pin, p, p.SHA256))
		file = filepath.Join(dir, p.file())
		if sum, err := hashFile(file); err == nil && sum == p.SHA256 {
			return file, p, nil
		}
	}
	progress("downloading " + p.String())
	return file, p, p.download(ctx, file)
}

// available returns the pinned package if apt's index has it, hash and all, or
// else the candidate that has taken its place.
func (s source) available(ctx context.Context) (Package, error) {
	if p, _, err := aptShow(ctx, s.pin.Name+"="+s.pin.Version); err == nil && p == s.pin {
		return p, nil
	}
	name := s.pin.Name
	if s.meta != "" {
		_, depends, err := aptShow(ctx, s.meta)
		if err != nil {
			return Package{}, err
		}
		if name = dependsOnImage.FindString(depends); name == "" {
			return Package{}, fmt.Errorf("package %s depends on no kernel image: %q", s.meta, depends)
		}
	}
	p, _, err := aptShow(ctx, name)
	return p, err
}

var (
	dependsOnImage = regexp.MustCompile(`linux-image-[^ ,(]+`)
	validSHA256    = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// errNoPackage is that apt's index lacks a package.
var errNoPackage = errors.New("apt's index does not have it; run apt-get update as root")

// aptShow returns the candidate for a package, NAME or NAME=VERSION, as apt's index has it.
func aptShow(ctx context.Context, spec string) (p Package, depends string, err error) {
	out, err := run(ctx, "", nil, "apt-cache", "show", "--no-all-versions", spec)
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = errNoPackage
		}
		return p, "", fmt.Errorf("package %s: %w", spec, err)
	}
	p, depends = parseStanza(out)
	if p.Name == "" || p.Version == "" || !validSHA256.MatchString(p.SHA256) {
		return p, "", fmt.Errorf("package %s: %w", spec, errNoPackage)
	}
	return p, depends, nil
}

// parseStanza reads the first stanza of what apt-cache show prints (deb-control(5)).
func parseStanza(out []byte) (p Package, depends string) {
	stanza, _, _ := bytes.Cut(out, []byte("\n\n"))
	for line := range strings.Lines(string(stanza)) {
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		switch value = strings.TrimSpace(value); key {
		case "Package":
			p.Name = value
		case "Version":
			p.Version = value
		case "SHA256":
			p.SHA256 = value
		case "Depends":
			depends = value
		}
	}
	return p, depends
}

// file is the package's name in the cache.
func (p Package) file() string {
	return p.Name + "_" + strings.ReplaceAll(p.Version, ":", "%3a") + ".deb"
}

// download fetches the package to file. apt checks it against the index; this
// checks it against p, so that an index which changed in between is noticed.
func (p Package) download(ctx context.Context, file string) (err error) {
	tmp, err := os.MkdirTemp(filepath.Dir(file), "download-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	if _, err := run(ctx, tmp, nil, "apt-get", "download", p.Name+"="+p.Version); err != nil {
		return fmt.Errorf("package %v: %w", p, err)
	}
	got, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil {
		return err
	}
	if len(got) != 1 {
		return fmt.Errorf("package %v: apt-get download left %d packages, not 1", p, len(got))
	}
	sum, err := hashFile(got[0])
	if err != nil {
		return err
	}
	if sum != p.SHA256 {
		return fmt.Errorf("package %v: SHA-256 %s, not %s", p, sum, p.SHA256)
	}
	return os.Rename(got[0], file)
}

// run runs a command and returns what it prints. Its last words on standard error are part of the error.
func run(ctx context.Context, dir string, env []string, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "LC_ALL=C"), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, fmt.Errorf("%w (make setup installs what is needed, on Debian)", err)
		}
		last := strings.TrimSpace(stderr.String())
		if i := strings.LastIndexByte(last, '\n'); i >= 0 {
			last = last[i+1:]
		}
		return nil, fmt.Errorf("%s: %w: %s", name, err, last)
	}
	return stdout.Bytes(), nil
}

// hashFile returns the SHA-256 of a file, in hex.
func hashFile(name string) (sum string, err error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// writeFile writes a file whole, or not at all.
func writeFile(name string, data []byte, mode fs.FileMode) error {
	tmp := name + ".incomplete"
	if err := os.WriteFile(tmp, data, mode); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}
