//go:build !amd64

package fpu

// native does not exist on this host.
type native struct{}

func newNative() (*native, *Context, error) { return nil, nil, nil }

func (*native) close(*Context) error        { return nil }
func (*native) call(Stub, *Context)         {}
func (*native) vector(Class, []byte) Stub   { return 0 }
func (*native) x87(opcode, modrm byte) Stub { return 0 }
