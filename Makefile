# Every target sets up what it needs; see CONTRIBUTING.md. All the work is in stemsite/setup/.
PYTHON ?= python3

.PHONY: run test setup lint messages dev faults fuzz bench load audit sbom lock

run test setup lint messages dev faults fuzz bench load audit sbom:
	@$(PYTHON) -m stemsite.setup.bootstrap $@ $(ARGS)

# Lock files with hashes are made anew from pyproject.toml (torch is installed apart, see
# stemsite/setup/torch_build.py). pip-tools has an environment of its own: what it needs is no part of the site.
lock: setup
	.venv/bin/python -m venv .venv/lock
	.venv/lock/bin/python -m pip install --quiet 'pip-tools>=7.6,<8'
	.venv/lock/bin/pip-compile $(LOCK) --upgrade -o requirements.lock pyproject.toml
	.venv/lock/bin/pip-compile $(LOCK) --upgrade --extra dev -o requirements-dev.lock pyproject.toml
LOCK = --quiet --strip-extras --unsafe-package torch --unsafe-package pip --no-emit-index-url --no-emit-find-links \
	--no-emit-trusted-host --no-header --no-annotate --generate-hashes
