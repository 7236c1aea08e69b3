# Every target sets up what it needs; see README.md. All the work is in stemsite/bootstrap.py.
PYTHON ?= python3

.PHONY: run test setup lint dev faults bench load lock

run test setup lint dev faults bench load:
	@$(PYTHON) stemsite/bootstrap.py $@ $(ARGS)

# Lock files are made anew from pyproject.toml (torch is installed apart, see bootstrap.py).
lock: setup
	.venv/bin/python -m pip install --quiet pip-tools
	.venv/bin/pip-compile $(LOCK) --upgrade -o requirements.lock pyproject.toml
	.venv/bin/pip-compile $(LOCK) --upgrade --extra dev -o requirements-dev.lock pyproject.toml
LOCK = --quiet --strip-extras --unsafe-package torch --no-emit-index-url --no-emit-find-links \
	--no-emit-trusted-host --no-header --no-annotate
