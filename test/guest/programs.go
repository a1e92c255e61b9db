package guest

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

//go:embed src
var sources embed.FS

// compilerFlags make programs that need nothing else of the system they run on,
// and that are the same bytes wherever and whenever they are built. The guest
// is x86-64-v2, so the compiler must not use more; exact floating point is part
// of what the programs check.
var compilerFlags = []string{"-std=gnu11", "-O2", "-g0", "-mno-red-zone", "-static", "-no-pie", "-fno-pie", "-march=x86-64", "-ffp-contract=off",
	"-Wall", "-Wextra", "-Werror", "-pthread", "-Wl,--build-id=none", "-Wl,-s"}

// programNames returns the names of the C programs of src.
func programNames() []string {
	files, err := fs.Glob(sources, "src/*.c")
	if err != nil {
		panic(fmt.Sprintf("BUG: %v", err))
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(filepath.Base(f), ".c")
	}
	return files
}

// source returns a file of src.
func sourceFile(name string) []byte {
	b, err := sources.ReadFile("src/" + name)
	if err != nil {
		panic(fmt.Sprintf("BUG: %v", err))
	}
	return b
}

// compile builds a program of src as dir/name.
func compile(ctx context.Context, dir, name string) error {
	// gcc records the name of its input, so it gets the same one everywhere.
	if err := os.WriteFile(filepath.Join(dir, name+".c"), sourceFile(name+".c"), 0o644); err != nil {
		return err
	}
	_, err := run(ctx, dir, nil, "gcc", append(compilerFlags, "-o", name, name+".c", "-lm")...)
	if err != nil {
		return fmt.Errorf("%s.c: %w", name, err)
	}
	return os.Remove(filepath.Join(dir, name+".c"))
}
