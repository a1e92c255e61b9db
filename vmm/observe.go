package vmm

import (
	"slices"

	"refault/vmm/dev/ata"
	"refault/vmm/x86"
)

// Span is a range of addresses, both ends included.
type Span = x86.Span

// Everywhere is all addresses.
var Everywhere = Span{First: 0, Last: ^uint64(0)}

// Observer looks at a machine while it runs. What is nil or empty is not looked at. None
// of its functions may change the machine, except that those that are called before
// something happens may call CPU.Abandon: then it has not happened, and the machine
// looks at the boundary before it once more.
type Observer struct {
	// Before is called before each instruction that begins at linear addresses Code, After when it
	// has retired, and Fetched with the bytes there before they are decoded; it may change them.
	Code    Span
	Before  func(c *x86.CPU, la uint64, in *x86.Inst)
	After   func(c *x86.CPU, in *x86.Inst)
	Fetched func(c *x86.CPU, la uint64, code []byte)
	// Access is called before a load or store at linear addresses Data.
	Data   Span
	Access func(c *x86.CPU, va uint64, n int, kind x86.Access)
	// Delivered is called when an exception or interrupt was delivered.
	Delivered func(c *x86.CPU, e x86.Exception)
	// SystemCall is called before SYSCALL or SYSENTER with a number in Calls, in RAX.
	Calls      Span
	SystemCall func(c *x86.CPU)
	// Output is called with each byte of the console.
	Output func(b byte)
	// Command is called before a drive starts a command that moves data.
	Command func(drive int, ops ata.Ops, lba, count uint64)
	// Drives is called before anything happens that a drive has a part in: nothing else of the machine depends on the state of one.
	Drives func()
	// Wrote is called after a drive has written sectors from lba on to its medium. It must not keep b.
	Wrote func(drive int, lba uint64, b []byte)
	// DMA is called before a bus master reads or writes n bytes of memory.
	DMA func(pa uint64, n int, write bool)
	// Notice is called when a defect shows, or goes, and when an error is reported in a machine-check bank, read and cleared.
	Notice func(n Notice)
}

func (o *Observer) seesCode() bool { return o.Before != nil || o.After != nil || o.Fetched != nil }

// Observe attaches an observer. It may be called where Inputs are called.
func (m *Machine) Observe(o *Observer) {
	m.observers = append(slices.Clone(m.observers), o)
	m.observe()
}

// Unobserve detaches an observer. It may be called from one's functions.
func (m *Machine) Unobserve(o *Observer) {
	m.observers = slices.DeleteFunc(slices.Clone(m.observers), func(x *Observer) bool { return x == o })
	m.observe()
}

// observe connects the processors to what the observers want to see.
func (m *Machine) observe() {
	var code, data, delivered bool
	var calls []Span
	m.observesAll = false
	for _, o := range m.observers {
		code = code || o.seesCode()
		m.observesAll = m.observesAll || o.seesCode() && o.Code.Last-o.Code.First > 1<<30
		data = data || o.Access != nil
		delivered = delivered || o.Delivered != nil
		if o.SystemCall != nil {
			calls = append(calls, o.Calls)
		}
	}
	for _, c := range m.CPUs {
		c.Delivered, c.SystemCall = nil, nil
		if delivered {
			c.Delivered = func(e x86.Exception) {
				for _, o := range m.observers {
					if o.Delivered != nil {
						o.Delivered(c, e)
					}
				}
			}
		}
		if len(calls) > 0 {
			c.SystemCalls = calls[0]
			for _, s := range calls {
				c.SystemCalls = Span{First: min(c.SystemCalls.First, s.First), Last: max(c.SystemCalls.Last, s.Last)}
			}
			c.SystemCall = func() {
				for _, o := range m.observers {
					if o.SystemCall != nil && o.Calls.Overlaps(c.Regs[x86.RAX], c.Regs[x86.RAX]) {
						o.SystemCall(c)
					}
				}
			}
		}
		var p *x86.Observer
		if code || data {
			p = &x86.Observer{}
		}
		if code {
			m.observeCode(c, p)
		}
		if data {
			m.observeData(c, p)
		}
		if p != nil || c.Observed() {
			c.SetObserver(p)
		}
	}
}

func (m *Machine) observeCode(c *x86.CPU, p *x86.Observer) {
	each := func(la uint64, n int, f func(o *Observer)) {
		for _, o := range m.observers {
			if o.seesCode() && o.Code.Overlaps(la, la+uint64(n)-1) {
				f(o)
			}
		}
	}
	for _, o := range m.observers {
		if o.seesCode() {
			p.Code = append(p.Code, o.Code)
		}
	}
	p.Fetched = func(la uint64, code []byte) {
		each(la, len(code), func(o *Observer) {
			if o.Fetched != nil {
				o.Fetched(c, la, code)
			}
		})
	}
	var at uint64
	p.Before = func(la uint64, in *x86.Inst) {
		at = la
		each(la, 1, func(o *Observer) {
			if o.Before != nil {
				o.Before(c, la, in)
			}
		})
	}
	p.After = func(in *x86.Inst) {
		each(at, 1, func(o *Observer) {
			if o.After != nil {
				o.After(c, in)
			}
		})
	}
}

func (m *Machine) observeData(c *x86.CPU, p *x86.Observer) {
	each := func(va uint64, n int, f func(o *Observer)) {
		for _, o := range m.observers {
			if o.Access != nil && o.Data.Overlaps(va, va+uint64(n)-1) {
				f(o)
			}
		}
	}
	for _, o := range m.observers {
		if o.Access != nil {
			p.Data = append(p.Data, o.Data)
		}
	}
	p.Access = func(va uint64, n int, kind x86.Access) {
		each(va, n, func(o *Observer) { o.Access(c, va, n, kind) })
	}
}

// observeOutput tells of a byte of the console.
func (m *Machine) observeOutput(b byte) {
	for _, o := range m.observers {
		if o.Output != nil {
			o.Output(b)
		}
	}
}

// observeCommand tells of a command that drive is about to start.
func (m *Machine) observeCommand(drive int, ops ata.Ops, lba, count uint64) {
	for _, o := range m.observers {
		if o.Command != nil {
			o.Command(drive, ops, lba, count)
		}
	}
}

// observeDrives tells that something is about to happen that drives have a part in.
func (m *Machine) observeDrives() {
	for _, o := range m.observers {
		if o.Drives != nil {
			o.Drives()
		}
	}
}

// observeWrite tells of sectors that a drive has written.
func (m *Machine) observeWrite(drive int, lba uint64, b []byte) {
	for _, o := range m.observers {
		if o.Wrote != nil {
			o.Wrote(drive, lba, b)
		}
	}
}

// observeDMA tells of an access of a bus master.
func (m *Machine) observeDMA(pa uint64, n int, write bool) {
	for _, o := range m.observers {
		if o.DMA != nil {
			o.DMA(pa, n, write)
		}
	}
}
