package x86

// Vector operations. Most need no name of their own: what they compute, package
// fpu computes, and only the operands matter, which the table says.
const (
	OpVector   Op = opVectorBase + iota // no MXCSR
	OpVectorFP                          // MXCSR: rounding, exceptions
	OpVectorFlags
	OpVectorFPFlags
	OpVectorImplicit // XMM0 is an operand
	OpVectorString   // PCMPxSTRx
	OpVectorApprox   // RCPPS and friends, which differ between processors
	OpMOVVec         // a whole register or memory operand
	OpMOVScalar      // MOVSS, MOVSD: merge between registers, clear from memory
	OpMOVLow         // MOVLPS, MOVLPD: 8 bytes, low
	OpMOVHigh        // MOVHPS, MOVHPD: 8 bytes, high
	OpMOVD           // between a general register or memory and a vector register
	OpMOVQ           // 8 bytes, the rest cleared
	OpMOVQ2DQ
	OpMOVDQ2Q
	OpMASKMOV
	OpEMMS
	OpLDMXCSR
	OpSTMXCSR
	OpFXSAVE
	OpFXRSTOR
	OpXSAVE
	OpXRSTOR
)

// formsVector is the MMX and SSE part of the opcode table (SDM Vol. 1 5.4 to 5.12).
var formsVector = concat(mmxForms(), sseForms(), []Form{
	{"0F 77", "emms", OpEMMS, IsMMX},
	{"NP 0F 10 /r", "movups Vx,Wx", OpMOVVec, IsSSE},
	{"NP 0F 11 /r", "movups Wx,Vx", OpMOVVec, IsSSE},
	{"66 0F 10 /r", "movupd Vx,Wx", OpMOVVec, IsSSE},
	{"66 0F 11 /r", "movupd Wx,Vx", OpMOVVec, IsSSE},
	{"NP 0F 28 /r", "movaps Vx,Wx", OpMOVVec, IsSSE | Align16},
	{"NP 0F 29 /r", "movaps Wx,Vx", OpMOVVec, IsSSE | Align16},
	{"66 0F 28 /r", "movapd Vx,Wx", OpMOVVec, IsSSE | Align16},
	{"66 0F 29 /r", "movapd Wx,Vx", OpMOVVec, IsSSE | Align16},
	{"66 0F 6F /r", "movdqa Vx,Wx", OpMOVVec, IsSSE | Align16},
	{"66 0F 7F /r", "movdqa Wx,Vx", OpMOVVec, IsSSE | Align16},
	{"F3 0F 6F /r", "movdqu Vx,Wx", OpMOVVec, IsSSE},
	{"F3 0F 7F /r", "movdqu Wx,Vx", OpMOVVec, IsSSE},
	{"F2 0F F0 /r:m", "lddqu Vx,Mx", OpMOVVec, IsSSE},
	{"66 0F E7 /r:m", "movntdq Mx,Vx", OpMOVVec, IsSSE | Align16},
	{"NP 0F 2B /r:m", "movntps Mx,Vx", OpMOVVec, IsSSE | Align16},
	{"66 0F 2B /r:m", "movntpd Mx,Vx", OpMOVVec, IsSSE | Align16},
	{"66 0F 38 2A /r:m", "movntdqa Vx,Mx", OpMOVVec, IsSSE | Align16},
	{"F3 0F 10 /r", "movss Vd,Wd", OpMOVScalar, IsSSE},
	{"F3 0F 11 /r", "movss Wd,Vd", OpMOVScalar, IsSSE},
	{"F2 0F 10 /r", "movsd Vq,Wq", OpMOVScalar, IsSSE},
	{"F2 0F 11 /r", "movsd Wq,Vq", OpMOVScalar, IsSSE},
	{"NP 0F 12 /r:m", "movlps Vq,Mq", OpMOVLow, IsSSE},
	{"NP 0F 13 /r:m", "movlps Mq,Vq", OpMOVLow, IsSSE},
	{"66 0F 12 /r:m", "movlpd Vq,Mq", OpMOVLow, IsSSE},
	{"66 0F 13 /r:m", "movlpd Mq,Vq", OpMOVLow, IsSSE},
	{"NP 0F 16 /r:m", "movhps Vq,Mq", OpMOVHigh, IsSSE},
	{"NP 0F 17 /r:m", "movhps Mq,Vq", OpMOVHigh, IsSSE},
	{"66 0F 16 /r:m", "movhpd Vq,Mq", OpMOVHigh, IsSSE},
	{"66 0F 17 /r:m", "movhpd Mq,Vq", OpMOVHigh, IsSSE},
	{"NP 0F 6E /r", "movd Py,Ey", OpMOVD, IsMMX},
	{"NP 0F 7E /r", "movd Ey,Py", OpMOVD, IsMMX},
	{"66 0F 6E /r", "movd Vy,Ey", OpMOVD, IsSSE},
	{"66 0F 7E /r", "movd Ey,Vy", OpMOVD, IsSSE},
	{"F3 0F 7E /r", "movq Vq,Wq", OpMOVQ, IsSSE},
	{"66 0F D6 /r", "movq Wq,Vq", OpMOVQ, IsSSE},
	{"NP 0F 6F /r", "movq Pq,Qq", OpMOVQ, IsMMX},
	{"NP 0F 7F /r", "movq Qq,Pq", OpMOVQ, IsMMX},
	{"NP 0F E7 /r:m", "movntq Mq,Pq", OpMOVQ, IsMMX},
	{"F3 0F D6 /r:r", "movq2dq Vq,Nq", OpMOVQ2DQ, IsMMX | IsSSE},
	{"F2 0F D6 /r:r", "movdq2q Pq,Uq", OpMOVDQ2Q, IsMMX | IsSSE},
	{"NP 0F F7 /r:r", "maskmovq Pq,Nq", OpMASKMOV, IsMMX},
	{"66 0F F7 /r:r", "maskmovdqu Vx,Ux", OpMASKMOV, IsSSE},
	{"NP 0F AE /0:m", "fxsave Mx", OpFXSAVE, 0},
	{"NP 0F AE /1:m", "fxrstor Mx", OpFXRSTOR, 0},
	{"NP 0F AE /2:m", "ldmxcsr Md", OpLDMXCSR, IsSSE},
	{"NP 0F AE /3:m", "stmxcsr Md", OpSTMXCSR, IsSSE},
	{"NP 0F AE /4:m", "xsave Mx", OpXSAVE, 0},
	{"NP 0F AE /5:m", "xrstor Mx", OpXRSTOR, 0},
})

// mmxForms are the integer operations that exist on MMX and on XMM registers alike.
func mmxForms() (f []Form) {
	both := func(op, name string) {
		f = append(f,
			Form{"NP 0F " + op + " /r", name + " Pq,Qq", OpVector, IsMMX},
			Form{"66 0F " + op + " /r", name + " Vx,Wx", OpVector, IsSSE | Align16})
	}
	for _, x := range []struct{ op, name string }{
		{"63", "packsswb"}, {"64", "pcmpgtb"}, {"65", "pcmpgtw"}, {"66", "pcmpgtd"}, {"67", "packuswb"},
		{"68", "punpckhbw"}, {"69", "punpckhwd"}, {"6A", "punpckhdq"}, {"6B", "packssdw"},
		{"74", "pcmpeqb"}, {"75", "pcmpeqw"}, {"76", "pcmpeqd"},
		{"D1", "psrlw"}, {"D2", "psrld"}, {"D3", "psrlq"}, {"D4", "paddq"}, {"D5", "pmullw"},
		{"D8", "psubusb"}, {"D9", "psubusw"}, {"DA", "pminub"}, {"DB", "pand"}, {"DC", "paddusb"}, {"DD", "paddusw"}, {"DE", "pmaxub"}, {"DF", "pandn"},
		{"E0", "pavgb"}, {"E1", "psraw"}, {"E2", "psrad"}, {"E3", "pavgw"}, {"E4", "pmulhuw"}, {"E5", "pmulhw"},
		{"E8", "psubsb"}, {"E9", "psubsw"}, {"EA", "pminsw"}, {"EB", "por"}, {"EC", "paddsb"}, {"ED", "paddsw"}, {"EE", "pmaxsw"}, {"EF", "pxor"},
		{"F1", "psllw"}, {"F2", "pslld"}, {"F3", "psllq"}, {"F4", "pmuludq"}, {"F5", "pmaddwd"}, {"F6", "psadbw"},
		{"F8", "psubb"}, {"F9", "psubw"}, {"FA", "psubd"}, {"FB", "psubq"}, {"FC", "paddb"}, {"FD", "paddw"}, {"FE", "paddd"},
		{"38 00", "pshufb"}, {"38 01", "phaddw"}, {"38 02", "phaddd"}, {"38 03", "phaddsw"}, {"38 04", "pmaddubsw"},
		{"38 05", "phsubw"}, {"38 06", "phsubd"}, {"38 07", "phsubsw"}, {"38 08", "psignb"}, {"38 09", "psignw"}, {"38 0A", "psignd"},
		{"38 0B", "pmulhrsw"}, {"38 1C", "pabsb"}, {"38 1D", "pabsw"}, {"38 1E", "pabsd"},
	} {
		both(x.op, x.name)
	}
	// The low unpacks read 4 bytes of an MMX memory operand.
	for _, x := range []struct{ op, name string }{{"60", "punpcklbw"}, {"61", "punpcklwd"}, {"62", "punpckldq"}} {
		f = append(f,
			Form{"NP 0F " + x.op + " /r", x.name + " Pq,Qd", OpVector, IsMMX},
			Form{"66 0F " + x.op + " /r", x.name + " Vx,Wx", OpVector, IsSSE | Align16})
	}
	// Shifts by an immediate.
	for _, x := range []struct{ enc, name string }{
		{"71 /2:r", "psrlw"}, {"71 /4:r", "psraw"}, {"71 /6:r", "psllw"},
		{"72 /2:r", "psrld"}, {"72 /4:r", "psrad"}, {"72 /6:r", "pslld"}, {"73 /2:r", "psrlq"}, {"73 /6:r", "psllq"},
	} {
		f = append(f,
			Form{"NP 0F " + x.enc, x.name + " Nq,Ib", OpVector, IsMMX},
			Form{"66 0F " + x.enc, x.name + " Ux,Ib", OpVector, IsSSE})
	}
	return append(f,
		Form{"66 0F 73 /3:r", "psrldq Ux,Ib", OpVector, IsSSE},
		Form{"66 0F 73 /7:r", "pslldq Ux,Ib", OpVector, IsSSE},
		Form{"NP 0F 70 /r", "pshufw Pq,Qq,Ib", OpVector, IsMMX},
		Form{"NP 0F C4 /r", "pinsrw Pq,Ew,Ib", OpVector, IsMMX},
		Form{"66 0F C4 /r", "pinsrw Vx,Ew,Ib", OpVector, IsSSE},
		Form{"NP 0F C5 /r:r", "pextrw Gd,Nq,Ib", OpVector, IsMMX},
		Form{"66 0F C5 /r:r", "pextrw Gd,Ux,Ib", OpVector, IsSSE},
		Form{"NP 0F D7 /r:r", "pmovmskb Gd,Nq", OpVector, IsMMX},
		Form{"66 0F D7 /r:r", "pmovmskb Gd,Ux", OpVector, IsSSE},
		Form{"NP 0F 3A 0F /r", "palignr Pq,Qq,Ib", OpVector, IsMMX},
		Form{"66 0F 3A 0F /r", "palignr Vx,Wx,Ib", OpVector, IsSSE | Align16})
}

func sseForms() (f []Form) {
	row := func(enc, syntax string, op Op, a Attr) { f = append(f, Form{enc, syntax, op, a | IsSSE}) }
	// Arithmetic in its four widths: packed single and double, scalar single and double.
	for _, x := range []struct{ op, name string }{
		{"51", "sqrt"}, {"58", "add"}, {"59", "mul"}, {"5C", "sub"}, {"5D", "min"}, {"5E", "div"}, {"5F", "max"},
	} {
		row("NP 0F "+x.op+" /r", x.name+"ps Vx,Wx", OpVectorFP, Align16)
		row("66 0F "+x.op+" /r", x.name+"pd Vx,Wx", OpVectorFP, Align16)
		row("F3 0F "+x.op+" /r", x.name+"ss Vd,Wd", OpVectorFP, 0)
		row("F2 0F "+x.op+" /r", x.name+"sd Vq,Wq", OpVectorFP, 0)
	}
	row("NP 0F C2 /r", "cmpps Vx,Wx,Ib", OpVectorFP, Align16)
	row("66 0F C2 /r", "cmppd Vx,Wx,Ib", OpVectorFP, Align16)
	row("F3 0F C2 /r", "cmpss Vd,Wd,Ib", OpVectorFP, 0)
	row("F2 0F C2 /r", "cmpsd Vq,Wq,Ib", OpVectorFP, 0)
	for _, x := range []struct{ op, name string }{{"54", "and"}, {"55", "andn"}, {"56", "or"}, {"57", "xor"}, {"14", "unpckl"}, {"15", "unpckh"}} {
		row("NP 0F "+x.op+" /r", x.name+"ps Vx,Wx", OpVector, Align16)
		row("66 0F "+x.op+" /r", x.name+"pd Vx,Wx", OpVector, Align16)
	}
	row("NP 0F C6 /r", "shufps Vx,Wx,Ib", OpVector, Align16)
	row("66 0F C6 /r", "shufpd Vx,Wx,Ib", OpVector, Align16)
	row("NP 0F 12 /r:r", "movhlps Vx,Ux", OpVector, 0)
	row("NP 0F 16 /r:r", "movlhps Vx,Ux", OpVector, 0)
	row("F3 0F 12 /r", "movsldup Vx,Wx", OpVector, Align16)
	row("F3 0F 16 /r", "movshdup Vx,Wx", OpVector, Align16)
	row("F2 0F 12 /r", "movddup Vx,Wq", OpVector, 0)
	row("66 0F 6C /r", "punpcklqdq Vx,Wx", OpVector, Align16)
	row("66 0F 6D /r", "punpckhqdq Vx,Wx", OpVector, Align16)
	row("66 0F 70 /r", "pshufd Vx,Wx,Ib", OpVector, Align16)
	row("F3 0F 70 /r", "pshufhw Vx,Wx,Ib", OpVector, Align16)
	row("F2 0F 70 /r", "pshuflw Vx,Wx,Ib", OpVector, Align16)
	row("NP 0F 50 /r:r", "movmskps Gd,Ux", OpVector, 0)
	row("66 0F 50 /r:r", "movmskpd Gd,Ux", OpVector, 0)
	for _, x := range []struct{ op, name string }{{"52", "rsqrt"}, {"53", "rcp"}} {
		row("NP 0F "+x.op+" /r", x.name+"ps Vx,Wx", OpVectorApprox, Align16)
		row("F3 0F "+x.op+" /r", x.name+"ss Vd,Wd", OpVectorApprox, 0)
	}
	row("NP 0F 2E /r", "ucomiss Vd,Wd", OpVectorFPFlags, 0)
	row("66 0F 2E /r", "ucomisd Vq,Wq", OpVectorFPFlags, 0)
	row("NP 0F 2F /r", "comiss Vd,Wd", OpVectorFPFlags, 0)
	row("66 0F 2F /r", "comisd Vq,Wq", OpVectorFPFlags, 0)
	// Conversions.
	row("NP 0F 2A /r", "cvtpi2ps Vx,Qq", OpVectorFP, IsMMX)
	row("66 0F 2A /r", "cvtpi2pd Vx,Qq", OpVectorFP, IsMMX)
	row("F3 0F 2A /r", "cvtsi2ss Vd,Ey", OpVectorFP, 0)
	row("F2 0F 2A /r", "cvtsi2sd Vq,Ey", OpVectorFP, 0)
	row("NP 0F 2C /r", "cvttps2pi Pq,Wq", OpVectorFP, IsMMX)
	row("66 0F 2C /r", "cvttpd2pi Pq,Wx", OpVectorFP, IsMMX|Align16)
	row("F3 0F 2C /r", "cvttss2si Gy,Wd", OpVectorFP, 0)
	row("F2 0F 2C /r", "cvttsd2si Gy,Wq", OpVectorFP, 0)
	row("NP 0F 2D /r", "cvtps2pi Pq,Wq", OpVectorFP, IsMMX)
	row("66 0F 2D /r", "cvtpd2pi Pq,Wx", OpVectorFP, IsMMX|Align16)
	row("F3 0F 2D /r", "cvtss2si Gy,Wd", OpVectorFP, 0)
	row("F2 0F 2D /r", "cvtsd2si Gy,Wq", OpVectorFP, 0)
	row("NP 0F 5A /r", "cvtps2pd Vx,Wq", OpVectorFP, 0)
	row("66 0F 5A /r", "cvtpd2ps Vx,Wx", OpVectorFP, Align16)
	row("F3 0F 5A /r", "cvtss2sd Vd,Wd", OpVectorFP, 0)
	row("F2 0F 5A /r", "cvtsd2ss Vq,Wq", OpVectorFP, 0)
	row("NP 0F 5B /r", "cvtdq2ps Vx,Wx", OpVectorFP, Align16)
	row("66 0F 5B /r", "cvtps2dq Vx,Wx", OpVectorFP, Align16)
	row("F3 0F 5B /r", "cvttps2dq Vx,Wx", OpVectorFP, Align16)
	row("F3 0F E6 /r", "cvtdq2pd Vx,Wq", OpVectorFP, 0)
	row("66 0F E6 /r", "cvttpd2dq Vx,Wx", OpVectorFP, Align16)
	row("F2 0F E6 /r", "cvtpd2dq Vx,Wx", OpVectorFP, Align16)
	// SSE3.
	for _, x := range []struct{ op, name string }{{"7C", "hadd"}, {"7D", "hsub"}, {"D0", "addsub"}} {
		row("66 0F "+x.op+" /r", x.name+"pd Vx,Wx", OpVectorFP, Align16)
		row("F2 0F "+x.op+" /r", x.name+"ps Vx,Wx", OpVectorFP, Align16)
	}
	// SSE4.1.
	row("66 0F 38 10 /r", "pblendvb Vx,Wx", OpVectorImplicit, Align16)
	row("66 0F 38 14 /r", "blendvps Vx,Wx", OpVectorImplicit, Align16)
	row("66 0F 38 15 /r", "blendvpd Vx,Wx", OpVectorImplicit, Align16)
	row("66 0F 38 17 /r", "ptest Vx,Wx", OpVectorFlags, Align16)
	for _, x := range []struct{ op, name, size string }{
		{"20", "pmovsxbw", "q"}, {"21", "pmovsxbd", "d"}, {"22", "pmovsxbq", "w"}, {"23", "pmovsxwd", "q"}, {"24", "pmovsxwq", "d"}, {"25", "pmovsxdq", "q"},
		{"30", "pmovzxbw", "q"}, {"31", "pmovzxbd", "d"}, {"32", "pmovzxbq", "w"}, {"33", "pmovzxwd", "q"}, {"34", "pmovzxwq", "d"}, {"35", "pmovzxdq", "q"},
	} {
		row("66 0F 38 "+x.op+" /r", x.name+" Vx,W"+x.size, OpVector, 0)
	}
	for _, x := range []struct{ op, name string }{
		{"28", "pmuldq"}, {"29", "pcmpeqq"}, {"2B", "packusdw"}, {"37", "pcmpgtq"}, {"38", "pminsb"}, {"39", "pminsd"}, {"3A", "pminuw"}, {"3B", "pminud"},
		{"3C", "pmaxsb"}, {"3D", "pmaxsd"}, {"3E", "pmaxuw"}, {"3F", "pmaxud"}, {"40", "pmulld"}, {"41", "phminposuw"},
	} {
		row("66 0F 38 "+x.op+" /r", x.name+" Vx,Wx", OpVector, Align16)
	}
	row("66 0F 3A 08 /r", "roundps Vx,Wx,Ib", OpVectorFP, Align16)
	row("66 0F 3A 09 /r", "roundpd Vx,Wx,Ib", OpVectorFP, Align16)
	row("66 0F 3A 0A /r", "roundss Vd,Wd,Ib", OpVectorFP, 0)
	row("66 0F 3A 0B /r", "roundsd Vq,Wq,Ib", OpVectorFP, 0)
	row("66 0F 3A 0C /r", "blendps Vx,Wx,Ib", OpVector, Align16)
	row("66 0F 3A 0D /r", "blendpd Vx,Wx,Ib", OpVector, Align16)
	row("66 0F 3A 0E /r", "pblendw Vx,Wx,Ib", OpVector, Align16)
	row("66 0F 3A 14 /r", "pextrb Eb,Vx,Ib", OpVector, 0)
	row("66 0F 3A 15 /r", "pextrw Ew,Vx,Ib", OpVector, 0)
	row("66 0F 3A 16 /r", "pextrd Ey,Vx,Ib", OpVector, 0)
	row("66 0F 3A 17 /r", "extractps Ed,Vx,Ib", OpVector, 0)
	row("66 0F 3A 20 /r", "pinsrb Vx,Eb,Ib", OpVector, 0)
	row("66 0F 3A 21 /r", "insertps Vx,Wd,Ib", OpVector, 0)
	row("66 0F 3A 22 /r", "pinsrd Vx,Ey,Ib", OpVector, 0)
	row("66 0F 3A 40 /r", "dpps Vx,Wx,Ib", OpVectorFP, Align16)
	row("66 0F 3A 41 /r", "dppd Vx,Wx,Ib", OpVectorFP, Align16)
	row("66 0F 3A 42 /r", "mpsadbw Vx,Wx,Ib", OpVector, Align16)
	// SSE4.2. The memory operand need not be aligned.
	row("66 0F 3A 60 /r", "pcmpestrm Vx,Wx,Ib", OpVectorString, 0)
	row("66 0F 3A 61 /r", "pcmpestri Vx,Wx,Ib", OpVectorString, 0)
	row("66 0F 3A 62 /r", "pcmpistrm Vx,Wx,Ib", OpVectorString, 0)
	row("66 0F 3A 63 /r", "pcmpistri Vx,Wx,Ib", OpVectorString, 0)
	return f
}
