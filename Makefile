# Each target installs what it needs, does nothing twice, and runs on any Debian 12 or 13 with Rust.
#
#   make demo    two real guests, one contended pCPU, and where the slow requests' time went
#   make demo-fio      a guest with a load of its own, fio, beside a busy one, and where its requests' time went
#   make test    every test, among them those that boot guests
#   make bench   what recording costs, and what observing costs a guest, beside perf and trace-cmd; and
#                every goal in one table, with what analysing takes: some twenty minutes
#   make bench-parent PARENT=COMMIT  that table with an older vslice beside it
#   make lab     the seed's experiment under true KVM, in an emulated host: some fifty minutes; with
#                BOX_KERNEL=trixie-backports that host runs Linux 7.3
#   make lint    what CI demands of the sources
#   make debian-image  a guest with systemd and qemu-guest-agent, to try `vslice attach` on
#   make load-image    the same with fio and PostgreSQL, to try `vslice attach --observe` on
#   make dist    vslice and the agent as packages have them: some minutes of compiling more
#   make clean   the build and the image; what was downloaded stays in the cache

AGENT  := target/release/vslice-agent
DIST_AGENT := target/guest/vslice-agent
VSLICE := target/release/vslice
IMAGE  := target/images/micro
NEWER  := target/images/micro-newer
OLDER  := target/images/micro-older
DEBIAN := target/images/debian
LOADS  := target/images/load
TIMED  := tests/timed
LAB    := runs/lab-$(shell date +%Y%m%d-%H%M%S)

# What is downloaded and what is compiled need not wait for each other.
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += --jobs=2
endif

.PHONY: demo demo-fio test every-test test-programs test-tools bench bench-recording bench-observing bench-reading bench-goals bench-parent lint build dist dist-agent image newer-image older-image
.PHONY: debian-image lab kernel needs clean

demo: image
	$(VSLICE) run demo

# As root, like all that starts an agent in a guest.
demo-fio: image load-image
	images/demo-fio $(VSLICE) $(IMAGE) $(LOADS)

# What took long is listed at the end; then what failed is printed once more, where it is found, and what
# could not be judged here.
test: SHELL := /bin/bash
test:
	@rm -rf target/times target/test.log
	@VSLICE_TIMES=$(abspath target/times) $(MAKE) --no-print-directory every-test; status=$$?; \
		VSLICE_TIMES=$(abspath target/times) tests/timed --show; \
		[ -e target/test.log ] || exit $$status; \
		[ $$status = 0 ] || sed -n '/^failures:$$/,/^test result/p' target/test.log; \
		grep 'not judged, because' target/test.log; exit $$status

every-test: SHELL := /bin/bash
every-test: .SHELLFLAGS := -o pipefail -c
every-test: test-programs image newer-image older-image debian-image load-image test-tools
	@newer="$$(tests/newer-tools)" && readers="$$(tests/readers)" || exit 1; \
		VSLICE_NEWER_TOOLS="$$newer" VSLICE_READERS="$$readers" \
		VSLICE_IMAGE=$(abspath $(IMAGE)) VSLICE_NEWER_IMAGE=$(abspath $(NEWER)) \
		VSLICE_OLDER_IMAGE=$(abspath $(OLDER)) \
		VSLICE_DEBIAN_IMAGE=$(abspath $(DEBIAN)) VSLICE_LOAD_IMAGE=$(abspath $(LOADS)) \
		VSLICE_BIN=$(abspath $(VSLICE)) \
		$(TIMED) "tests: run" tests/timed --tests cargo test --workspace --locked --no-fail-fast 2>&1 | tee target/test.log
	@if [ -r /sys/kernel/btf/vmlinux ] && [ "$$(id -u)" = 0 ]; then \
		$(TIMED) "BPF against C" cargo test --workspace --locked --tests --quiet -- --ignored c_tests 2>&1; \
	else \
		echo "BPF against C: not judged, because this kernel has no BTF, or this is not root"; \
	fi | tee -a target/test.log

# Beside the release build and the images, and after lint, which would wait for the same directory.
test-programs: lint
	$(TIMED) "tests: compile" cargo test --workspace --locked --no-run

# Where nothing is cached it is half a gigabyte to wait for: beside the compiler, and after the images, for apt
# installs one thing at a time.
test-tools: debian-image load-image
	@$(TIMED) "needs of the tests" .ci/install-needs test
	@$(TIMED) "newer tools" tests/newer-tools >/dev/null
	@$(TIMED) "readers" tests/readers >/dev/null

# BENCH takes options: `make bench BENCH=--quick`, `make bench-recording BENCH=--json`, `BENCH=--help`.
RECORDING_COST := cargo bench --profile dist --quiet --locked -p vslice-tests --bench recording_cost
bench:
	@$(MAKE) --no-print-directory bench-recording
	@$(MAKE) --no-print-directory bench-observing
	@$(MAKE) --no-print-directory bench-goals

bench-recording:
	@.ci/install-needs bench >&2
	@$(RECORDING_COST) -- $(BENCH)

# On this machine, and in a guest.
bench-observing: dist-agent
	@.ci/install-needs bench >&2
	@.ci/install-needs debian >&2
	@$(RECORDING_COST) -- --observing --agent $(abspath $(DIST_AGENT)) $(BENCH)
	@tests/bench/in-guest "$$($(RECORDING_COST) --no-run --message-format json-render-diagnostics | \
		sed -n 's/.*"executable":"\([^"]*recording_cost[^"]*\)".*/\1/p')" $(DIST_AGENT) $(BENCH)

bench-reading:
	@.ci/install-needs bench >&2
	@$(RECORDING_COST) -- --reading $(BENCH)

# The guest's reader is among the goals. DOCUMENT=docs/costs.md writes the table there.
GOALS := $(RECORDING_COST) -- --goals --vslice $(abspath target/dist/vslice) --image $(abspath $(IMAGE)) \
	$(if $(DOCUMENT),--document $(abspath $(DOCUMENT)))
bench-goals: image dist
	@.ci/install-needs bench >&2
	@$(GOALS) $(BENCH)

# PARENT is the commit before the work on speed and size, if no other is named.
PARENT := 19565b7
bench-parent: image dist
	@.ci/install-needs bench >&2
	@older="$$(tests/bench/parent $(PARENT))" && $(GOALS) --parent "$$older" $(BENCH)

# What it leaves is in $(LAB): the runs, what compare says, the box's console.
lab: image
	@.ci/install-needs debian
	VSLICE_BIN=$(abspath $(VSLICE)) VSLICE_IMAGE=$(abspath $(IMAGE)) tests/box/lab $(LAB)

lint:
	$(TIMED) "lint: fmt" cargo fmt --all --check
	$(TIMED) "lint: clippy" cargo lint
	RUSTDOCFLAGS="-D warnings" $(TIMED) "lint: doc" cargo doc --workspace --no-deps --locked --quiet

# The agent is static, and is compiled with what is compiled for vslice: nothing twice. So only the agent
# itself gets the flag, not what it is made of.
STATIC := -- -C target-feature=+crt-static
build:
	$(TIMED) "build: vslice" cargo build --release --locked -p vslice
	$(TIMED) "build: agent" cargo rustc --release --locked -p vslice-agent --bin vslice-agent $(STATIC)

dist: dist-agent
	cargo build --profile dist --locked -p vslice
	@echo "target/dist/vslice and target/guest/vslice-agent"

dist-agent:
	cargo rustc --profile guest --locked -p vslice-agent --bin vslice-agent $(STATIC)

image: build kernel
	$(TIMED) "micro image" images/build-micro $(AGENT) $(IMAGE)

# The same with the kernel of Debian's backports, for tests.
newer-image: build kernel
	$(TIMED) "newer micro image" tests/other-kernel $(AGENT) $(NEWER) trixie-backports

# And with the kernel of Debian 11.
older-image: build kernel
	$(TIMED) "older micro image" tests/other-kernel $(AGENT) $(OLDER) bullseye

# A guest as users have them: systemd and qemu-guest-agent, the agent in /usr/local/bin. As root.
debian-image: build kernel
	@.ci/install-needs debian
	$(TIMED) "debian image" images/build-debian $(AGENT) $(DEBIAN)

load-image: build kernel
	@.ci/install-needs debian
	$(TIMED) "load image" images/build-debian $(AGENT) $(LOADS) load

kernel: needs
	$(TIMED) kernel images/fetch-kernel

needs:
	$(TIMED) needs .ci/install-needs

clean:
	cargo clean
