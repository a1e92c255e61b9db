package dev

import (
	"bytes"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"

	"refault/vmm/bounded"
)

// Encode returns the encoding of a device's state: what a snapshot stores and the state hash covers.
// It is a function of the state alone, since states hold no maps.
func Encode(d Device) []byte { return EncodeSaved(d.Name(), d.Save()) }

// EncodeSaved is Encode of what Save of the device with a name returned, also while that device goes on.
func EncodeSaved(name string, state any) []byte {
	var b bytes.Buffer
	enc := msgpack.NewEncoder(&b)
	enc.UseArrayEncodedStructs(true)
	if err := enc.Encode(state); err != nil {
		panic("BUG: state of " + name + " cannot be encoded: " + err.Error())
	}
	return b.Bytes()
}

// Decode restores a device from what Encode returned. The bytes may come from
// outside: an error names the device, and leaves it in an unspecified state.
func Decode(d Device, b []byte) error {
	err := d.Restore(func(s any) error {
		if err := bounded.Check(b, 1); err != nil {
			return err
		}
		dec := msgpack.NewDecoder(bytes.NewReader(b))
		return dec.Decode(s)
	})
	if err != nil {
		return fmt.Errorf("state of device %s: %w", d.Name(), err)
	}
	return nil
}
