# Two commands do all the set-up: `make demo` and `make test`. The virtual environment lives in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT := demo

.PHONY: demo test test-all fuzz results docs lint bench clean

# `run` is the toolkit alone; `test` and `lint` add their extra.
$(VENV)/.installed-%: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --editable '.$(addprefix [,$(addsuffix ],$(filter-out run,$*)))'
	touch $@

.PRECIOUS: $(VENV)/.installed-%

# The main job on the built-in phantom: measure, then report.
demo: $(VENV)/.installed-run
	$(BIN)/python cli.py bench --protocol litemedsam --protocol batched \
		--max-slices 6 --rounds 10 --passes 1 --out $(OUT)/bench.jsonl
	$(BIN)/python cli.py report $(OUT)/bench.jsonl -o $(OUT)/report

# Tests that start worker processes, in a process that other tests' runtimes and signal handlers have not been in.
WORKERS := $(addprefix tests/test_,$(addsuffix .py,executors segment segment_many submission record))

test: MARKED := -m 'not slow'
test test-all: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(MARKED) --benchmark-disable $(WORKERS)
	$(BIN)/python -m pytest $(MARKED) --benchmark-disable $(addprefix --ignore=,$(WORKERS))

# For the night: mutated files through every reader.
fuzz: $(VENV)/.installed-test
	$(BIN)/python tests/fuzz.py --count 12000 --seed $$(date +%Y%m%d)

# The committed report and figures, and the tables of README, docs and model card, from the committed records.
results: $(VENV)/.installed-run
	$(BIN)/python cli.py report reports/results -o reports/results --format markdown --format csv \
		--readme README.md --readme docs/results.md --readme docs/gpu.md
	$(BIN)/python cli.py report reports/accuracy --readme ckpts/light_repvit_m0_9.md --readme ckpts/repvit.md

docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m bench --benchmark-only --benchmark-autosave

clean:
	rm -rf $(VENV) $(OUT) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .benchmarks
