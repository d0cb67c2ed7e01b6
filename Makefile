# Targets that a person types; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# May carry options of pip, to take a CPU-only build from an index of your choice.
TORCH ?= torch==2.13.0
# Passed on: make demo DEMO="--devices 4 --rounds 3"; make chaos CHAOS="--seed 7 --keep"
DEMO ?=
CHAOS ?=
# One thread for each numeric library: the tests run several processes at once.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long check vectors bench bench-train bench-codecs bench-laq bench-fedavg-codecs runtimes footprint fedavg simulate mutants failpoints soak chaos netfault clean mosquitto fuzz-gradients prometheus-test deploy-test systemd-test kubernetes-test aarch64-wheels

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-19s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## Install everything into .venv (fast when nothing changed)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@

demo: setup  ## Train with a whole fleet on this machine and show the result
	@$(BIN)/fedfleet demo $(DEMO)

test: setup mosquitto  ## Run the tests; the unit tests must cover the rules to 95 %
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/unit --cov --cov-report=term --cov-fail-under=95
	$(BIN)/python -m pytest -n 2 --dist loadfile tests --ignore tests/unit

test-long: setup mosquitto  ## Run the long tests, which make test leaves out
	$(BIN)/python -m pytest -m long tests

check: setup  ## Format, lint, types, import contracts, then all tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test

vectors: setup  ## Write the golden vectors of the wire format anew (a change needs a version)
	@for script in tests/vectors/write_*.py; do \
		echo "$$script"; $(BIN)/python "$$script" || exit 1; \
	done

bench: setup mosquitto  ## Measure rounds that train nothing; BENCH="--strict" fails on a missed aim
	@$(BIN)/python -m benchmarks.noop_round $(BENCH)

bench-train: setup  ## Time training steps beside torch; BENCH_TRAIN=--docs writes the page
	@$(BIN)/python -m benchmarks.training $(BENCH_TRAIN)
	@$(BIN)/python -m benchmarks.training.calls $(if $(findstring --docs,$(BENCH_TRAIN)),--docs)

bench-codecs: setup  ## Each codec's error on four kinds of vectors, and its speed beside memcpy
	@$(BIN)/python -m benchmarks.codecs nmse
	@$(BIN)/python -m benchmarks.codecs speed

bench-laq: setup  ## LAQ beside GD, QGD, LAG and FLQ; LAQ="--mnist DIR" for MNIST too
	@$(BIN)/python -m benchmarks.compression.laq $(LAQ)

bench-fedavg-codecs: setup  ## Accuracy against bytes of every codec; CODECS="--mnist DIR" (an hour)
	@$(BIN)/python -m benchmarks.compression.fedavg $(CODECS)

runtimes: setup  ## Train the same graphs on onnxruntime 1.16, 1.19, 1.23 and the newest
	@$(BIN)/python -m tests.runtimes $(RUNTIMES)

footprint: setup  ## Install .[device] alone, train LeNet-5 on it, measure memory and start
	@$(BIN)/python -m benchmarks.training.footprint $(FOOTPRINT)

fedavg: setup  ## Train MNIST with onnx, torch and mixed fleets; FEDAVG="--mnist FOLDER"
	@$(BIN)/python -m benchmarks.training.fedavg $(FEDAVG)

simulate: setup  ## Live 10,000 simulated fleets through bad luck; SEED=n shows one of them
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),$(SIMULATE))

mutants: setup  ## Plant bugs and prove that the simulation finds every one
	@$(BIN)/python -m tests.simulation.mutate $(MUTANTS)

failpoints: setup mosquitto  ## Kill the programs at every failpoint (an hour), then print what one costs
	$(BIN)/python -m pytest -m matrix tests/acceptance/test_acceptance_failpoint_matrix.py
	@$(BIN)/python -m benchmarks.failpoint_cost

soak: setup mosquitto  ## Play 1,000 rounds and watch memory; SOAK="--rounds 200" for fewer
	@$(BIN)/python -m benchmarks.soak $(SOAK)

chaos: setup mosquitto  ## Kill a fleet 200 times on Mosquitto, 50 times on amqtt, and check it
	@$(BIN)/fedfleet chaos --broker mosquitto --devices 8 --kills 200 --updates 300 $(CHAOS)
	@$(BIN)/fedfleet chaos --broker embedded --devices 8 --kills 50 --updates 75 $(CHAOS)

prometheus-test: setup mosquitto  ## Let a real Prometheus scrape a fleet that trains; ask all of the dashboard
	@$(BIN)/python -m tests.deploy.prometheus_scrape

deploy-test: setup mosquitto  ## Build the images, live the compose testbed on a Docker engine (root)
	@TORCH="$(TORCH)" $(BIN)/python -m tests.deploy.compose $(DEPLOY)

systemd-test: setup  ## A device under systemd in nspawn: killed, hung, upgraded, rolled back (root)
	@$(BIN)/python -m tests.deploy.systemd

kubernetes-test: setup  ## Render the Kubernetes overlays, validate them against three versions (no cluster)
	@$(BIN)/python -m tests.deploy.kubernetes

aarch64-wheels: setup  ## Is there a wheel of all that a device needs, for 64-bit ARM?
	@PYTHON="$(CURDIR)/$(BIN)/python" tests/deploy/aarch64_wheels.sh

netfault: setup mosquitto  ## 20 MB over a link that loses, delays and is cut for 30 s (root)
	$(BIN)/python -m pytest -s -m netfault tests/acceptance

fuzz-gradients: setup  ## Differentiate 2,000 random graphs and check every gradient (two to ten minutes)
	FEDFLEET_FUZZ_GRAPHS=2000 $(BIN)/python -m pytest -q --timeout 7200 \
		tests/unit/central/modeling/training_graph/test_training_graph_fuzz.py

clean:  ## Remove what was built, installed and run here
	rm -rf $(VENV) build runs .coverage .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

mosquitto:
	@PATH="$$PATH:/usr/sbin:/usr/local/sbin" command -v mosquitto >/dev/null \
		|| { echo "The tests need the Mosquitto broker and its clients:" \
			"apt-get install mosquitto mosquitto-clients (Debian, Ubuntu)," \
			"brew install mosquitto (macOS)" >&2; exit 1; }
