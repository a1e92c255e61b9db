package interp

import "refault/vmm/x86"

var sseOps = map[x86.Op]selector{}
