# `make demo` and `make test` do all their set-up themselves; they use the first of these Pythons
# that runs and can make virtual environments.
PYTHONS := python3.13 python3.12 python3.11
PYTHON ?= $(firstword $(foreach python,$(PYTHONS),$(shell $(python) -c 'import ensurepip; print("$(python)")' 2>/dev/null)))
REQUIRE_PYTHON = test -n "$(PYTHON)" || { echo "none of $(PYTHONS) is here, with venv" >&2; exit 1; }
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
# What `make demo` and `make serve` need; $(INSTALLED) includes it.
RUNNABLE := $(VENV)/runnable
# Where `make serve` looks for a model, as `python -m serving run` does.
MODELS := $(or $(SERVING_MODELS),models)
# Programs that only `make test-peers` runs; they need node and npm, Java, go, and Debian's
# libb64-0d. Those listed below have environments of their own, on Python 3.11: the servers and
# perf_analyzer, and what runs in one process with TensorFlow.
PEERS := .peers
OTHERS := triton mlserver kserve perf-analyzer
BESIDE_TENSORFLOW := onnx stable-baselines3

# Programs that only `make test-cluster` runs.
CLUSTER := .cluster

# Tests whose results can differ between versions of Python; .ci/run runs them on each.
PYTHON_TESTS := $(patsubst %,tests/test_%.py,packaging fallbacks architecture requirements act policy export \
	learner rollout sampling tensors infer logs metrics_endpoint)

.PHONY: demo serve model test test-long test-cluster test-peers test-python lint lock

demo: $(RUNNABLE)
	@exec $(BIN)/python -m scripts.demo

serve: model $(RUNNABLE)
	exec $(BIN)/python -m serving run

model:
	$(if $(wildcard $(MODELS)/*/*/saved_model.pb),@:,$(error There is no model in \
		$(MODELS) yet: `make demo` trains one))

# Two processes: much of a test's time is waiting. The tests of a file share their services.
PYTEST_IN_TWO := $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test: lint
	$(PYTEST_IN_TWO)

test-long: $(INSTALLED)
	$(PYTEST_IN_TWO) -m long

test-python: $(INSTALLED)
	$(PYTEST_IN_TWO) $(PYTHON_TESTS)

test-peers: $(INSTALLED) $(PEERS)/installed $(patsubst %,$(PEERS)/%/installed,$(OTHERS) \
		$(BESIDE_TENSORFLOW))
	$(BIN)/pytest -m peers

test-cluster: $(INSTALLED) $(CLUSTER)/installed
	$(BIN)/pytest -m cluster

$(CLUSTER)/installed: requirements/cluster.txt
	test -d $(CLUSTER)/bin || $(PYTHON) -m venv $(CLUSTER)
	$(CLUSTER)/bin/pip install --quiet --require-hashes -r requirements/cluster.txt
	touch $@

$(PEERS)/installed: requirements/peers.txt tests/clients/package.json
	test -d $(PEERS)/bin || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --require-hashes -r requirements/peers.txt
	cp tests/clients/package.json $(PEERS)/
	npm install --prefix $(PEERS) --no-package-lock --ignore-scripts --no-audit --no-fund
	touch $@

# For examples/stable_baselines3_ppo.py; the lock file omits torch, which the .in file pins.
$(PEERS)/stable-baselines3/installed: requirements/train.txt requirements/bench-training.txt \
		requirements/bench-training.in
	test -d $(@D)/bin || python3.11 -m venv $(@D)
	$(@D)/bin/pip install --quiet --require-hashes -r $<
	$(@D)/bin/pip install --quiet --require-hashes --no-deps -r $(word 2,$^)
	$(@D)/bin/pip install --quiet -r $(word 3,$^)
	touch $@

$(PEERS)/%/installed: requirements/peers-%.txt
	test -d $(@D)/bin || python3.11 -m venv $(@D)
	$(@D)/bin/pip install --quiet --require-hashes -r $<
	touch $@

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

$(INSTALLED): requirements/dev.txt requirements/no-deps.txt
	@$(REQUIRE_PYTHON)
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements/dev.txt
	$(BIN)/pip install --quiet --require-hashes --no-deps -r requirements/no-deps.txt
	touch $@ $(RUNNABLE)

$(RUNNABLE): requirements/train.txt requirements/serve.txt requirements/play.txt
	@$(REQUIRE_PYTHON)
	@$(PYTHON) -m scripts.install $(VENV) $^
	@touch $@

# Pins what pyproject.toml and requirements/*.in ask for, the same version of a package in every
# file, for every Python from 3.11 on.
LOCK = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header
lock:
	$(LOCK) pyproject.toml --extra dev -o requirements/dev.txt
	for extra in train serve play pull grpc sign parquet tune ray box2d; do \
		$(LOCK) pyproject.toml --extra $$extra -c requirements/dev.txt \
			-o requirements/$$extra.txt || exit; \
	done
	cd requirements && for name in peers peers-onnx bench-serving bench-rejax; do \
		$(LOCK) $$name.in -c dev.txt -o $$name.txt || exit; \
	done
	cd requirements && for name in cluster $(OTHERS:%=peers-%); do \
		$(LOCK) $$name.in -o $$name.txt || exit; \
	done
	@# On Windows torch requires no CUDA packages; pip installs torch itself, see the .in file.
	cd requirements && $(subst --universal,--python-platform windows,$(LOCK)) \
		--no-emit-package torch bench-training.in -c dev.txt -o bench-training.txt
