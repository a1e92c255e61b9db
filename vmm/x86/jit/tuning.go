//go:build linux && amd64

package jit

// TranslateAtOnce makes the engine translate a block at its first visit, and not when it has
// proved to be worth it: for tests, which have no loops.
func (e *Engine) TranslateAtOnce() { e.hotAfter = 1 }
