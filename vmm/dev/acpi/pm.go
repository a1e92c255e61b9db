package acpi

import (
	"fmt"
	"math/bits"

	"refault/vmm/dev"
)

// PMBase is where the machine maps the ports of a PM, and where the tables say they are.
const (
	PMBase     = 0x600
	NumPMPorts = 0x40
)

// SCI is the interrupt of the fixed hardware, level-sensitive and active high.
const SCI = 9

// Ports, relative to PMBase.
const (
	portPM1Status  = 0x00
	portPM1Enable  = 0x02
	portPM1Control = 0x04
	portTimer      = 0x08
	portGPEStatus  = 0x20
	portGPEEnable  = 0x22
)

// Bits of the PM1 status and enable registers.
const (
	pm1Timer       = 1 << 0
	pm1Global      = 1 << 5
	pm1PowerButton = 1 << 8
	pm1RTC         = 1 << 10 // can be enabled, as everywhere; there is no sleep that the clock's alarm could end

	pm1Enables = pm1Timer | pm1Global | pm1PowerButton | pm1RTC
)

// Bits of the PM1 control register.
const (
	pm1SCIEnable   = 1 << 0
	pm1SleepType   = 7 << 10
	pm1SleepEnable = 1 << 13

	// sleepTypeS5 is the SLP_TYP value of S5, soft off, as _S5 has it.
	sleepTypeS5 = 5
)

// timerHz is the rate of the PM timer.
const timerHz = 3579545

// PMConfig is what a PM is attached to.
type PMConfig struct {
	Queue *dev.Queue
	SCI   dev.Line
	// PowerOff is called when the guest enters S5.
	PowerOff func()
}

// PM is the fixed hardware.
type PM struct {
	cfg   PMConfig
	timer *dev.Timer

	status, enable, control uint16
	gpeStatus, gpeEnable    uint16
	// epoch is the timer's value divided by 2^31, when status was last brought up to date.
	epoch uint64
	level bool // of the SCI
}

// PMState is the saved state of a PM.
type PMState struct {
	Version   uint8
	Status    uint16
	Enable    uint16
	Control   uint16
	GPEStatus uint16
	GPEEnable uint16
	Epoch     uint64
}

// NewPM returns the fixed hardware.
func NewPM(cfg PMConfig) *PM {
	p := &PM{cfg: cfg}
	p.timer = cfg.Queue.NewTimer("pmtimer", p.update)
	p.Reset()
	return p
}

// ticks returns the PM timer as if it had 64 bits.
func (p *PM) ticks() uint64 {
	hi, lo := bits.Mul64(p.cfg.Queue.Now(), timerHz)
	q, _ := bits.Div64(hi, lo, 1_000_000_000)
	return q
}

// ticksNs returns the first nanosecond at which ticks returns n or more, or dev.Never.
func ticksNs(n uint64) uint64 {
	hi, lo := bits.Mul64(n, 1_000_000_000)
	lo, carry := bits.Add64(lo, timerHz-1, 0)
	if hi += carry; hi >= timerHz {
		return dev.Never
	}
	q, _ := bits.Div64(hi, lo, timerHz)
	return q
}

// update notes that the timer's highest bit has changed, drives the SCI, and
// sees to it that it is called again when it has to be.
func (p *PM) update() {
	if epoch := p.ticks() >> 31; epoch != p.epoch {
		p.epoch = epoch
		p.status |= pm1Timer
	}
	if p.enable&pm1Timer != 0 {
		p.timer.Set(ticksNs((p.epoch + 1) << 31))
	} else {
		p.timer.Stop()
	}
	p.level = p.sci()
	p.cfg.SCI.Set(p.level)
}

func (p *PM) sci() bool {
	return p.status&p.enable&pm1Enables != 0 || p.gpeStatus&p.gpeEnable != 0
}

// PressPowerButton is the power button: the guest is asked to shut down.
func (p *PM) PressPowerButton() {
	p.status |= pm1PowerButton
	p.update()
}

// RaiseGPE signals general-purpose event n (0 to 15).
func (p *PM) RaiseGPE(n int) {
	p.gpeStatus |= 1 << n
	p.update()
}

// register returns the 16-bit register at an even port.
func (p *PM) register(port uint16) uint16 {
	switch port {
	case portPM1Status:
		p.update()
		return p.status
	case portPM1Enable:
		return p.enable
	case portPM1Control:
		return p.control
	case portTimer:
		return uint16(p.ticks())
	case portTimer + 2:
		return uint16(p.ticks() >> 16)
	case portGPEStatus:
		return p.gpeStatus
	case portGPEEnable:
		return p.gpeEnable
	}
	return 0
}

// setRegister writes the bits in mask of the 16-bit register at an even port.
func (p *PM) setRegister(port, v, mask uint16) {
	v &= mask
	switch port {
	case portPM1Status:
		p.update() // a bit that is due is cleared too
		p.status &^= v
	case portPM1Enable:
		p.enable = p.enable&^mask | v&pm1Enables
	case portPM1Control:
		p.control = p.control&^(mask&pm1SleepType) | v&pm1SleepType | pm1SCIEnable
		if v&pm1SleepEnable != 0 && p.control&pm1SleepType == sleepTypeS5<<10 && p.cfg.PowerOff != nil {
			p.cfg.PowerOff()
		}
	case portGPEStatus:
		p.gpeStatus &^= v
	case portGPEEnable:
		p.gpeEnable = p.gpeEnable&^mask | v
	}
	p.update()
}

// In implements dev.Ports.
func (p *PM) In(port uint16, size int) uint32 {
	var v uint32
	for i := 0; i < size; {
		at := port + uint16(i)
		if at&1 == 0 && size-i >= 2 {
			v |= uint32(p.register(at)) << (8 * i)
			i += 2
			continue
		}
		v |= uint32(uint8(p.register(at&^1)>>(8*(at&1)))) << (8 * i)
		i++
	}
	return v
}

// Out implements dev.Ports.
func (p *PM) Out(port uint16, size int, v uint32) {
	for i := 0; i < size; {
		at, w := port+uint16(i), uint16(v>>(8*i))
		if at&1 == 0 && size-i >= 2 {
			p.setRegister(at, w, 0xffff)
			i += 2
			continue
		}
		shift := 8 * (at & 1)
		p.setRegister(at&^1, w<<shift, 0xff<<shift)
		i++
	}
}

// Name implements dev.Device.
func (p *PM) Name() string { return "acpi" }

// Reset implements dev.Device.
func (p *PM) Reset() {
	p.status, p.enable, p.control = 0, 0, pm1SCIEnable
	p.gpeStatus, p.gpeEnable = 0, 0
	p.epoch = p.ticks() >> 31
	p.update()
}

// Save implements dev.Device.
func (p *PM) Save() any {
	return &PMState{Version: 1, Status: p.status, Enable: p.enable, Control: p.control,
		GPEStatus: p.gpeStatus, GPEEnable: p.gpeEnable, Epoch: p.epoch}
}

// Restore implements dev.Device. It drives no line: the interrupt controllers' states hold the levels.
func (p *PM) Restore(decode func(any) error) error {
	var s PMState
	if err := decode(&s); err != nil {
		return err
	}
	if s.Version != 1 {
		return fmt.Errorf("state version %d, this program knows version 1", s.Version)
	}
	p.status, p.enable, p.control = s.Status, s.Enable&pm1Enables, s.Control&pm1SleepType|pm1SCIEnable
	p.gpeStatus, p.gpeEnable, p.epoch = s.GPEStatus, s.GPEEnable, s.Epoch
	p.level = p.sci()
	return nil
}
