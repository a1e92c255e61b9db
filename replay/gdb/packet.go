package gdb

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// maxPacket bounds a packet in bytes, in both directions.
const maxPacket = 1 << 14

// ErrProtocol reports bytes that are not the remote serial protocol.
var ErrProtocol = errors.New("not the GDB remote protocol")

// interruptByte is what GDB sends, outside packets, to stop a running target.
const interruptByte = 3

// Conn is a connection with GDB. Packets are read by a goroutine, so that they are
// acknowledged at once, and the interrupt is seen while the machine runs.
type Conn struct {
	in     *bufio.Reader
	out    io.Writer
	mu     sync.Mutex // of out: acknowledgements and answers
	noAck  bool
	packet chan []byte // closed at the end of the connection
	err    error       // why, once packet is closed
	done   chan struct{}
	// interrupt is called, from another goroutine, for each interrupt.
	interrupt atomic.Pointer[func()]
}

// NewConn starts to read. GDB waits a few seconds for its first answer: Serve should come soon.
func NewConn(rw io.ReadWriter) *Conn {
	l := &Conn{in: bufio.NewReader(rw), out: rw, packet: make(chan []byte), done: make(chan struct{})}
	go func() {
		defer close(l.packet)
		for {
			p, err := l.read()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					l.err = err
				}
				return
			}
			select {
			case l.packet <- p:
			case <-l.done:
				return
			}
		}
	}()
	return l
}

// close ends the reader, as soon as what it reads from ends or says something.
func (l *Conn) close() { close(l.done) }

// read returns the next packet, without its frame.
func (l *Conn) read() ([]byte, error) {
	for {
		b, err := l.in.ReadByte()
		if err != nil {
			return nil, err
		}
		switch b {
		case '+', '-': // answers are not sent again: the connection is reliable
			continue
		case interruptByte:
			if f := l.interrupt.Load(); f != nil {
				(*f)()
			}
			continue
		case '$':
		default:
			return nil, fmt.Errorf("byte %#02x between packets: %w", b, ErrProtocol)
		}
		p, sum, err := l.body()
		if err != nil {
			return nil, err
		}
		l.mu.Lock()
		quiet := l.noAck
		l.mu.Unlock()
		if quiet {
			return unescape(p), nil
		}
		var want [2]byte
		hex.Encode(want[:], []byte{checksum(p)})
		ok := string(want[:]) == string(sum[:])
		ack := "-"
		if ok {
			ack = "+"
		}
		if err := l.write([]byte(ack)); err != nil {
			return nil, err
		}
		if ok {
			return unescape(p), nil
		}
	}
}

// body reads a packet from after its '$', with its checksum.
func (l *Conn) body() (p []byte, sum [2]byte, err error) {
	for {
		b, err := l.in.ReadByte()
		if err != nil {
			return nil, sum, err
		}
		if b == '#' {
			break
		}
		if len(p) == maxPacket {
			return nil, sum, fmt.Errorf("a packet of more than %d bytes: %w", maxPacket, ErrProtocol)
		}
		p = append(p, b)
	}
	_, err = io.ReadFull(l.in, sum[:])
	return p, sum, err
}

func (l *Conn) write(b []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.out.Write(b)
	return err
}

// send sends a packet.
func (l *Conn) send(p []byte) error {
	e := escape(p)
	b := append(make([]byte, 0, len(e)+4), '$')
	b = append(b, e...)
	return l.write(fmt.Appendf(b, "#%02x", checksum(e)))
}

// quiet ends acknowledgements.
func (l *Conn) quiet() {
	l.mu.Lock()
	l.noAck = true
	l.mu.Unlock()
}

func checksum(p []byte) (sum byte) {
	for _, b := range p {
		sum += b
	}
	return sum
}

// escape hides the bytes that have a meaning in the frame (GDB manual, E.1).
func escape(p []byte) []byte {
	e := make([]byte, 0, len(p))
	for _, b := range p {
		if b == '$' || b == '#' || b == '}' || b == '*' {
			e = append(e, '}')
			b ^= 0x20
		}
		e = append(e, b)
	}
	return e
}

func unescape(p []byte) []byte {
	u := make([]byte, 0, len(p))
	for i := 0; i < len(p); i++ {
		if p[i] == '}' && i+1 < len(p) {
			i++
			u = append(u, p[i]^0x20)
		} else {
			u = append(u, p[i])
		}
	}
	return u
}
