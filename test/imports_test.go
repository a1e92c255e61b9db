// Package test holds what belongs to no package: guests, the processor oracle, and
// checks of the whole tree.
package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "refault/"

// mayImport says what each part of the tree may import of the others. Imports point
// one way: cmd → {injectors, compare} → {replay, snapshot} → {vmm, traces}; vmm
// imports none of the others and traces is a leaf.
var mayImport = map[string][]string{
	"traces":    {},
	"vmm":       {},
	"snapshot":  {"vmm", "traces"},
	"replay":    {"snapshot", "vmm", "traces"},
	"injectors": {"replay", "snapshot", "vmm", "traces"},
	"compare":   {"replay", "snapshot", "vmm", "traces"},
	"cmd":       {"injectors", "compare", "replay", "snapshot", "vmm", "traces", "test"},
	"test":      {"injectors", "compare", "replay", "snapshot", "vmm", "traces"},
}

// testsMayImport is what tests may import besides: guests, and what makes the faults that they look at.
var testsMayImport = []string{"test", "injectors"}

// shared are packages that everybody may import: they import nothing of ours.
var shared = []string{"vmm/bounded"}

// notInVMM are packages by which something that is not determined could come into the machine.
var notInVMM = []string{"time", "math/rand", "math/rand/v2", "crypto/rand", "os", "os/exec", "os/signal", "net", "net/http", "testing"}

// exceptions are files of vmm that import one of notInVMM, and why they may.
var exceptions = map[string]string{
	"vmm/dev/disk/image.go": "opens the images of disks, which a recording names by their hash",
	"vmm/dev/devtest":       "is imported by tests only",
}

func TestImportsPointOneWay(t *testing.T) {
	files := token.NewFileSet()
	seen := 0
	err := filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != ".." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		f, err := parser.ParseFile(files, name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		seen++
		checkFile(t, files, filepath.ToSlash(strings.TrimPrefix(name, "../")), f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 50 {
		t.Errorf("saw only %d files", seen)
	}
}

func checkFile(t *testing.T, files *token.FileSet, name string, f *ast.File) {
	dir := path.Dir(name)
	part, _, _ := strings.Cut(name, "/")
	isTest := strings.HasSuffix(name, "_test.go")
	excepted := exceptions[name] != "" || exceptions[dir] != ""
	allowed, known := mayImport[part]
	if !known {
		t.Errorf("%s: %s is not a part of the tree that this test knows", name, part)
		return
	}
	for _, im := range f.Imports {
		p, err := strconv.Unquote(im.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		if p == "unsafe" && !strings.HasSuffix(name, "_unsafe.go") && !isTest {
			t.Errorf("%s imports unsafe; that is for files named _unsafe.go", name)
		}
		if part == "vmm" && !isTest && !excepted && slices.Contains(notInVMM, p) {
			t.Errorf("%s imports %s: nothing in vmm may depend on the host", name, p)
		}
		ours, ok := strings.CutPrefix(p, module)
		if !ok || slices.Contains(shared, ours) {
			continue
		}
		to, _, _ := strings.Cut(ours, "/")
		if slices.Contains(shared, dir) || to != part && !slices.Contains(allowed, to) && !(isTest && slices.Contains(testsMayImport, to)) {
			t.Errorf("%s imports %s, which is not below it", name, p)
		}
	}
	if part != "vmm" || isTest || excepted {
		return
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n.(type) {
		case *ast.GoStmt, *ast.SelectStmt:
			t.Errorf("%s: nothing in vmm may depend on when a goroutine runs", files.Position(n.Pos()))
		}
		return true
	})
}
