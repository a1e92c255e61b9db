package interp

import "refault/vmm/x86"

var x87Ops = map[x86.Op]selector{}
