# Each target installs what it needs, does nothing twice, and runs on any Debian 12 with Rust.
#
#   make demo    two real guests, one contended pCPU, and where the slow requests' time went
#   make test    every test, among them those that boot guests
#   make lint    what CI demands of the sources
#   make clean   the build and the image; what was downloaded stays in the cache

CACHE  := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/vslice
TRIPLE := $(shell rustc -vV | sed -n 's/^host: //p')
AGENT  := target/$(TRIPLE)/release/vslice-agent
VSLICE := target/release/vslice
IMAGE  := target/images/micro
RUN    := runs/demo-$(shell date +%Y%m%d-%H%M%S)

.PHONY: demo test lint build image needs clean

demo: build image
	$(VSLICE) run demo --output $(RUN)

test: lint build image
	VSLICE_IMAGE=$(abspath $(IMAGE)) VSLICE_BIN=$(abspath $(VSLICE)) \
		cargo test --workspace --locked

lint: needs
	cargo fmt --all --check
	cargo lint
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet

build: needs
	cargo build --release --locked -p vslice
	RUSTFLAGS="-C target-feature=+crt-static" \
		cargo build --release --locked --target $(TRIPLE) -p vslice-agent

image: build
	images/fetch-kernel
	images/build-micro $(AGENT) $(IMAGE)

needs:
	.ci/install-needs

clean:
	cargo clean
