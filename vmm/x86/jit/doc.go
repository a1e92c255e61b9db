// Package jit translates guest instructions into instructions of the host, which is of the same
// architecture: most of them stay what they are, with other registers.
package jit

import "errors"

// ErrHost reports a host that the translator does not support.
var ErrHost = errors.New("the translator runs on linux/amd64 only")
