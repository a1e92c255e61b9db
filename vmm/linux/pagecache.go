package linux

import (
	"bytes"

	"refault/vmm/x86"
)

// pageCache is what it takes to find the file that a page of memory is a part of.
type pageCache struct {
	vmemmap uint64 // address of the pointer to the descriptors of all pages

	mapping, index, host, dentries, alias, name uint64 // offsets of members
}

// pageStructBytes is the size of struct page, which x86-64 kernels align to a cache line.
const pageStructBytes = 64

// newPageCache returns nil where the kernel has not all of it.
func newPageCache(t *btf, s Symbols) *pageCache {
	var p pageCache
	var ok bool
	if p.vmemmap, ok = s.Addr("vmemmap_base"); !ok {
		return nil
	}
	for _, x := range []struct {
		to           *uint64
		name, member string
	}{{&p.mapping, "page", "mapping"}, {&p.index, "page", "index"}, {&p.host, "address_space", "host"},
		{&p.dentries, "inode", "i_dentry"}, {&p.alias, "dentry", "d_u"}, {&p.name, "dentry", "d_name"}} {
		var err error
		if *x.to, err = t.member(x.name, x.member); err != nil {
			return nil
		}
	}
	return &p
}

// File returns the name of the file whose content the page cache holds at physical address pa, without
// its directories, and which byte of it that is.
func (k *Kernel) File(c *x86.CPU, pa uint64) (name string, at uint64, ok bool) {
	p := k.cache
	if p == nil {
		return "", 0, false
	}
	ok = true
	follow := func(va uint64) (v uint64) {
		if ok {
			v, ok = load(c, va, 8)
			ok = ok && v != 0
		}
		return v
	}
	page := follow(p.vmemmap) + pa>>12*pageStructBytes
	space := follow(page + p.mapping)
	if space&3 != 0 { // anonymous memory, or none of anybody
		return "", 0, false
	}
	// Of the file's names the first: the list links struct dentry by its member.
	dentry := follow(follow(space+p.host)+p.dentries) - p.alias
	text := follow(dentry + p.name + 8) // struct qstr: hash and length, then the name
	index, known := load(c, page+p.index, 8)
	if !ok || !known {
		return "", 0, false
	}
	var b []byte
	for one := make([]byte, 1); len(b) < 64 && read(c, text+uint64(len(b)), one) && one[0] != 0; {
		b = append(b, one[0])
	}
	return string(bytes.ToValidUTF8(b, []byte("?"))), index<<12 + pa&0xfff, len(b) > 0
}
