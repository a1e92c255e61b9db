package compare

import "testing"

func TestClassifyEndings(t *testing.T) {
	const golden = "[    0.1] boot\nhello: a\ncat: b\nguest: done\n"
	g := Ending{Output: []byte(golden), Step: 1000, Reason: "power-off"}
	end := func(output, reason string) Ending { return Ending{Output: []byte(output), Step: 1000, Reason: reason} }
	for _, tt := range []struct {
		name  string
		f     Ending
		equal bool
		want  Outcome
	}{
		{"nothing", g, true, Masked},
		{"state", g, false, Latent},
		{"later", end("[    0.2] boot\nhello: a\ncat: b\nguest: done\n", "power-off"), false, Latent},
		{"another order", end("[    0.1] boot\ncat: b\nhello: a\nguest: done\n", "power-off"), false, Latent},
		{"another line", end("[    0.1] boot\nhello: x\ncat: b\nguest: done\n", "power-off"), false, SDC},
		{"a line less", end("[    0.1] boot\nhello: a\nguest: done\n", "power-off"), false, SDC},
		{"a line twice", end("[    0.1] boot\nhello: a\nhello: a\ncat: b\nguest: done\n", "power-off"), false, SDC},
		{"status", Ending{Output: []byte(golden), Step: 1000, Reason: "power-off", Status: 3}, false, SDC},
		{"corrected", end("[    0.1] boot\nmce: [Hardware Error]: Machine check events logged\nhello: a\ncat: b\nguest: done\n", "power-off"), false, Corrected},
		{"an interrupt that nobody sent", end("[    0.1] boot\n[    0.2] spurious 8259A interrupt: IRQ7.\nhello: a\ncat: b\nguest: done\n", "power-off"), false, Corrected},
		{"recovered", end("[    0.1] boot\nI/O error, dev sda, sector 1\nhello: a\nguest: done\n", "power-off"), false, Recovered},
		{"panic", end("[    0.1] boot\nKernel panic - not syncing: x\n", "reset"), false, Crash},
		{"shutdown", end("[    0.1] boot\n", "triple-fault"), false, Crash},
		{"no end", end(golden, "max-steps"), false, Hang},
		{"dead", end("[    0.1] boot\n", "dead"), false, Hang},
	} {
		if got, why := ClassifyEndings(g, tt.f, func() bool { return tt.equal }); got != tt.want || why == "" {
			t.Errorf("%s: %s (%s), want %s", tt.name, got, why, tt.want)
		}
	}
}
