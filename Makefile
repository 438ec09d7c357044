# make demo   from nothing to a chosen, compressed, measured and exported model, and its report
# make test   linter, type checker, layers and the whole test suite
# make check  the same without the tests that take minutes

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Two files of tests at a time: most of them wait for processes that they started. By name, since those with few tests
# take longest, and would come last and leave one core with nothing to do.
SIDE_BY_SIDE := -n 2 --dist loadfile --no-loadscope-reorder
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test check lint clean

# "Undetermined" is an answer: exit code 3 says that the run ended and more seeds are needed to decide.
demo: $(STAMP)
	$(BIN)/sizewise run digits || [ $$? -eq 3 ]

test: $(STAMP) browser lint
	$(BIN)/pytest $(SIDE_BY_SIDE) --durations=40

check: $(STAMP) lint
	$(BIN)/pytest -m "not slow" $(SIDE_BY_SIDE)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Every version is pinned. The package itself is editable, so that it need not be installed again after a change.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing; name another with make PYTHON=python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

# The report and the page of the server are tested in a real browser. Where there is none and none can be installed, those tests say so and skip.
.PHONY: browser
browser:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	  && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
	  || echo "note: chromium is not installed; the browser tests will skip"

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
