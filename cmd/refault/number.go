package main

import (
	"fmt"
	"strconv"
	"strings"

	"refault/injectors"
	"refault/vmm"
)

// stepFlag is a number of steps: 812345678, 5e8, 0x1000, or, where it may be, "end".
type stepFlag struct {
	v   *uint64
	end bool // "end" is vmm.Never
}

func (s stepFlag) String() string {
	if s.v == nil || *s.v == 0 || *s.v == vmm.Never {
		return ""
	}
	return strconv.FormatUint(*s.v, 10)
}

func (s stepFlag) Set(text string) error {
	if s.end && text == "end" {
		*s.v = vmm.Never
		return nil
	}
	n, err := injectors.ParseUint(strings.ReplaceAll(text, "_", ""))
	if err != nil {
		return err
	}
	*s.v = n
	return nil
}

func (stepFlag) Type() string { return "step" }

// sizeFlag is a number of bytes with an optional suffix K, M or G (of 1024).
type sizeFlag struct{ v *uint64 }

func (s sizeFlag) String() string {
	if s.v == nil {
		return ""
	}
	return sizeText(*s.v)
}

func (s sizeFlag) Set(text string) error {
	n, shift := strings.ToUpper(strings.TrimSuffix(strings.TrimSuffix(text, "B"), "i")), 0
	for i, suffix := range []string{"K", "M", "G"} {
		if t, ok := strings.CutSuffix(n, suffix); ok {
			n, shift = t, 10*(i+1)
			break
		}
	}
	v, err := strconv.ParseUint(n, 0, 64)
	if err != nil || v<<shift>>shift != v {
		return fmt.Errorf("%q is not a size (write 512M or 1G)", text)
	}
	*s.v = v << shift
	return nil
}

func (sizeFlag) Type() string { return "size" }

// sizeText writes a number of bytes so that sizeFlag reads it.
func sizeText(n uint64) string {
	for i, suffix := range []string{"G", "M", "K"} {
		if shift := 30 - 10*i; n != 0 && n&(1<<shift-1) == 0 {
			return strconv.FormatUint(n>>shift, 10) + suffix
		}
	}
	return strconv.FormatUint(n, 10)
}

// about writes a number of bytes for people.
func about(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d bytes", n)
}

// grouped writes a number in groups of three digits.
func grouped(n uint64) string {
	s := strconv.FormatUint(n, 10)
	var b strings.Builder
	for i, d := range s {
		if i > 0 && (len(s)-i)%3 == 0 {
			b.WriteByte(' ')
		}
		b.WriteRune(d)
	}
	return b.String()
}

// seconds writes virtual time.
func seconds(ns uint64) string { return fmt.Sprintf("%d.%06d s", ns/1e9, ns%1e9/1e3) }
