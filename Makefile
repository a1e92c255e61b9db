# make demo is the place to start; the other targets are for work on refault itself.

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GUEST       := .cache/guest
SOAK        ?= 1h
ROUNDS      ?= 3
# Hosts without the translator, of either byte order.
OTHERS      := arm64 s390x

.PHONY: all setup build guest bare check test demo bench soak cross clean

all: build

# Go, a C compiler, mke2fs: installed where they are missing.
setup:
	@test/setup

build: setup
	go build -trimpath -o bin/refault ./cmd/refault

# Debian's kernels with an initramfs and a disk, in $(GUEST).
guest: setup
	go run ./test/guest/mkguest -dir $(GUEST)

# The bare-metal guest that is committed, from its source.
bare: setup
	go generate ./test/guest/bare

check: setup
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$unformatted" ]; then echo "gofmt would change:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	@for arch in $(OTHERS); do echo "GOARCH=$$arch go vet ./..."; GOARCH=$$arch go vet ./... || exit 1; done
	go run $(STATICCHECK) ./...

# go test comes last: its closing lines are the run's.
test: check guest
	go test -timeout 60m ./...

demo: build guest
	bin/refault demo --dir .cache/demo --kernel $(GUEST)/vmlinuz --initrd $(GUEST)/initrd.cpio --disk $(GUEST)/disk.img \
		--append "console=ttyS0 panic=-1 nokaslr refault.run=demo"

# Beside QEMU and the processor itself, on the same guest. ROUNDS=1 is a quick look.
bench: build guest
	@test/setup bench
	go run ./test/bench -rounds $(ROUNDS)

# Random tests, for as long as SOAK says.
soak: guest
	REFAULT_SOAK=$(SOAK) go test -timeout 0 -count 1 ./...

# Other hosts, emulated: the interpreter's tests, and recordings that were made on this one.
cross: build
	@test/setup cross
	rm -rf .cache/cross
	bin/refault demo --dir .cache/cross > /dev/null
	@for host in arm64:aarch64 s390x:s390x; do \
		go=$${host%:*} qemu=qemu-$${host#*:}-static; \
		GOARCH=$$go go test -exec $$qemu ./vmm/x86/fpu/... ./vmm/x86/interp && \
		GOARCH=$$go go test -exec $$qemu -run 'Engine|Software' ./replay && \
		GOARCH=$$go go build -o .cache/cross/refault ./cmd/refault && \
		for r in .cache/cross/*.rec; do $$qemu .cache/cross/refault verify $$r || exit 1; done || exit 1; \
	done

clean:
	rm -rf bin .cache
