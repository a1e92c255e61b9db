package replay

import (
	"bytes"
	"reflect"
	"testing"

	"refault/vmm"
	"refault/vmm/dev"
	"refault/vmm/dev/ata"
	"refault/vmm/dev/disk"
)

// references collects the memory that a value refers to, by the address of it.
func references(v reflect.Value, found map[uintptr]string, path string) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			found[v.Pointer()] = path
			references(v.Elem(), found, path)
		}
	case reflect.Slice:
		if v.Cap() > 0 {
			found[v.Pointer()] = path
		}
		fallthrough
	case reflect.Array:
		for i := range v.Len() {
			references(v.Index(i), found, path+"[]")
		}
	case reflect.Struct:
		for i := range v.NumField() {
			references(v.Field(i), found, path+"."+v.Type().Field(i).Name)
		}
	case reflect.Map, reflect.Interface, reflect.Func, reflect.Chan:
		found[0] = path + " of kind " + v.Kind().String()
	}
}

// lengthen gives every empty slice of a state an element.
func lengthen(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			lengthen(v.Elem())
		}
	case reflect.Slice:
		if v.Len() == 0 {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		}
		fallthrough
	case reflect.Array:
		for i := range v.Len() {
			lengthen(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			lengthen(v.Field(i))
		}
	}
}

// TestSavedStatesAreTheirOwn: a mark encodes what Save returned while the device goes on.
func TestSavedStatesAreTheirOwn(t *testing.T) {
	p := openPlayer(t, record(t, 12, often))
	if err := p.Seek(p.End() / 2); err != nil {
		t.Fatal(err)
	}
	at := p.m.Step()
	p.m.SetInputs(&script{events: []*vmm.Event{
		fault(at, vmm.Fault{Kind: vmm.FaultDisk, Disk: ata.Fault{ID: 1, Kind: ata.FaultWrong, Ops: ata.OpRead, Count: 256, Mask: []byte{1}}}),
		fault(at, vmm.Fault{Kind: vmm.FaultDefect, Defect: &vmm.Defect{ID: 2, Kind: 1, Addr: 0x200000, Bad: []byte{0xff}, Grain: 64, By: 0xffff, Mask: []byte{1}, Value: []byte{1}}}),
	}})
	if _, err := p.m.Run(at + 1); err != nil {
		t.Fatal(err)
	}
	slices := 0
	for _, d := range p.m.Devices() {
		if _, ok := d.(*disk.Disk); ok {
			continue // it has a hash
		}
		for i := range reflect.TypeOf(d.Save()).Elem().NumField() {
			was, more := dev.Encode(d), d.Save()
			lengthen(reflect.ValueOf(more).Elem().Field(i))
			if dev.Decode(d, dev.EncodeSaved(d.Name(), more)) != nil { // it cannot be
				if err := dev.Decode(d, was); err != nil {
					t.Fatal(err)
				}
			}
		}
		one, other := map[uintptr]string{}, map[uintptr]string{}
		a := d.Save()
		references(reflect.ValueOf(a), one, d.Name())
		references(reflect.ValueOf(d.Save()), other, d.Name())
		for at, path := range other {
			if at == 0 {
				t.Errorf("%s is in a saved state", path)
			} else if one[at] != "" {
				t.Errorf("%s is the device's own: two saved states share it", path)
			}
		}
		slices += len(other) - 1
		t.Logf("%s: %d", d.Name(), len(other)-1)
		was := dev.EncodeSaved(d.Name(), a)
		d.Reset()
		if !bytes.Equal(dev.EncodeSaved(d.Name(), a), was) {
			t.Errorf("%s changes a state that it saved", d.Name())
		}
	}
	if slices < 10 {
		t.Errorf("only %d slices were looked at", slices)
	}
}
