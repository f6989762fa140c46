# Two commands are enough on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYTHONDONTWRITEBYTECODE =  # else every process compiles all that it imports: nine seconds each

.PHONY: demo test suite rehearse venv lint format clean

demo: $(VENV)/.ready
	$(BIN)/lora-scene demo --out demo

test: lint suite

suite: $(VENV)/.ready
	$(BIN)/python -m pytest -n auto --dist worksteal

rehearse: $(VENV)/.ready  # a first day in full size, on random weights: 25 minutes of two cores, 12 GB
	$(BIN)/python -m pip install --quiet --no-deps open_clip_torch==3.3.0
	$(BIN)/python -m benchmarks.rehearse --folder build/rehearsal --log build/rehearsal.jsonl

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

venv: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt  # only what is imported is compiled, and then
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --group dev \
		--editable ".[optimizers,judging,page,workshop]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info demo
