# Python 3.11+ and make are enough; `make check` also wants Node 20+ for the spec linter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
LINTER := node_modules/.installed
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
UV := VIRTUAL_ENV=$(VENV) $(BIN)/uv pip --quiet
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade
LOCK := $(COMPILE) pyproject.toml
SBOM := .venv/sbom
GENERATORS := .venv/clients
TOURS := tests/clients
BENCH := .venv/bench
SECTIONS ?= all
REDOCLY := REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true node_modules/.bin/redocly
SPECS := openapi/product-gateway.yaml openapi/product-service.yaml openapi/operations.yaml
CODEGEN := $(BIN)/datamodel-codegen --input openapi/product-gateway.yaml --input-file-type openapi --output-model-type typing.TypedDict --target-python-version 3.11 --openapi-scopes schemas --enum-field-as-literal all --disable-timestamp --use-schema-description --strict-nullable --no-use-closed-typed-dict --formatters ruff-format --custom-file-header '"""The bodies of the API as types. Generated from openapi/product-gateway.yaml by `make generate`: never edit."""'

.DEFAULT_GOAL := help
.PHONY: help install run test versions check lint types imports specs generate clients fuzz chaos soak vendor audit sbom bench bench-tools lock dist clean node

help: ## print this
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

install: $(INSTALLED) ## make the environment in .venv (the other targets do it too)

# uv installs the lock several times as fast as pip, which does it where uv cannot be had or does not reach the
# package index that pip is set up with.
$(INSTALLED): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; say which one with: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) what requirements-dev.txt locks"
	@awk '/^[^ #]/ { found = /^uv==/ } found' requirements-dev.txt > $(VENV)/uv.txt
	@{ $(PIP) install --only-binary :all: --require-hashes -r $(VENV)/uv.txt && $(UV) sync --compile-bytecode --require-hashes requirements-dev.txt; } || $(PIP) install --require-hashes -r requirements-dev.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q app tests
	@touch $@

run: $(INSTALLED) ## gateway, worker, sample service, a merchant and a token on this machine; Ctrl-C stops it all
	@$(BIN)/product-gateway demo

# Tests make and throw away some hundred databases: in memory, where Linux has room for them there.
IN_MEMORY = $(shell [ "$$(df -k /dev/shm 2>/dev/null | awk 'END { print $$4 + 0 }')" -gt 8000000 ] && echo TMPDIR=/dev/shm)

# Tests wait more than they compute, so there are two processes for each core.
test: $(INSTALLED) ## run the tests; VENV=folder PYTHON=python3.12 for another version, ARGUMENTS for pytest
	$(IN_MEMORY) $(BIN)/python -m pytest -n $$((2 * $$(getconf _NPROCESSORS_ONLN))) --dist worksteal $(ARGUMENTS)

# An environment for each version, within the first one.
versions: $(INSTALLED) ## run all but the slowest tests on every other Python from 3.11 on that is found here
	@for python in $$($(BIN)/python tests/interpreters.py); do \
	  version=$$($$python -c 'import platform; print(platform.python_version())'); \
	  echo "Tests on Python $$version, $$python"; \
	  $(MAKE) --no-print-directory test PYTHON=$$python VENV=.venv/python$$version ARGUMENTS=--without-slowest || exit 1; \
	done

check: lint types imports specs ## lint, types, imports, specs: what has to hold besides the tests

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(INSTALLED)
	$(BIN)/mypy

imports: $(INSTALLED)
	$(BIN)/lint-imports --no-logo

specs: $(INSTALLED) $(LINTER)
	$(BIN)/openapi-spec-validator $(SPECS)
	@said=$$($(REDOCLY) lint --lint-config=error $(SPECS) 2>&1) || { echo "$$said"; exit 1; }
	@echo "Redocly has nothing to say against $(SPECS)"
	@$(BIN)/python tests/api_changes.py
	@$(CODEGEN) --output .venv/api_types.py
	@cmp -s .venv/api_types.py app/product_gateway/api_types.py || { echo "app/product_gateway/api_types.py is not what the spec says: run make generate"; exit 1; }

$(LINTER): package.json package-lock.json .npmrc | node
	@echo "Installing into node_modules what package-lock.json locks"
	@npm ci --ignore-scripts --loglevel=error
	@touch $@

node:
	@command -v npx >/dev/null && node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' || { echo "Node 20 or newer is needed for the spec linter"; exit 1; }

generate: $(INSTALLED) ## write api_types.py from the spec
	$(CODEGEN) --output app/product_gateway/api_types.py

clients: $(GENERATORS)/installed $(TOURS)/node_modules/.installed ## generate clients in seven languages from the spec, and run them against a sandbox
	@$(BIN)/python tests/generated.py

$(GENERATORS)/installed: requirements-clients.txt | $(INSTALLED)
	@echo "Installing into $(GENERATORS) what requirements-clients.txt locks"
	@$(BIN)/python -m venv $(GENERATORS)
	@VIRTUAL_ENV=$(GENERATORS) $(BIN)/uv pip --quiet sync --require-hashes requirements-clients.txt || $(GENERATORS)/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes -r requirements-clients.txt
	@touch $@

$(TOURS)/node_modules/.installed: $(TOURS)/package.json $(TOURS)/package-lock.json $(TOURS)/.npmrc
	@if command -v npm >/dev/null; then echo "Installing into $(@D) what $(TOURS)/package-lock.json locks" && cd $(TOURS) && npm ci --ignore-scripts --loglevel=error && touch node_modules/.installed; fi

fuzz: $(INSTALLED) ## Schemathesis against the running server, for longer than the tests do
	FUZZ_EXAMPLES=1000 $(BIN)/python -m pytest tests/test_fuzz.py

chaos: $(INSTALLED) ## kill, stop, restart and cut everything for CHAOS_SECONDS (60) on each database; nothing may be lost
	$(BIN)/python tests/chaos.py

soak: $(INSTALLED) ## ordinary load for SOAK_SECONDS (600); neither memory, files, threads nor latency may grow
	$(BIN)/python tests/soak.py

vendor: $(INSTALLED) node ## fetch again what the pages bring along, and compare it with pages/VENDORED.toml
	@$(BIN)/python tests/vendored.py

audit: $(INSTALLED) ## look for known vulnerabilities in what is locked (needs the internet)
	@$(BIN)/pip-audit --strict --require-hashes --disable-pip --progress-spinner off -r requirements.txt -r requirements-dev.txt 2>.venv/audit.log; passed=$$?; tail -n 1 .venv/audit.log; [ $$passed = 0 ] || { echo "Not passed: something has a known vulnerability, or could not be looked up"; exit 1; }

sbom: $(SBOM)/installed ## list what requirements.txt locks, for scanners: CycloneDX in dist/sbom.json
	@mkdir -p dist
	@PYTHONWARNINGS=ignore $(SBOM)/bin/cyclonedx-py requirements requirements.txt --index-url "" --pyproject pyproject.toml --output-reproducible --of JSON --sv 1.6 --output-file dist/sbom.json
	@echo "dist/sbom.json lists $$(grep -c '"purl"' dist/sbom.json) packages"

# An environment of its own: what this tool brings along would make every start of the others slower.
$(SBOM)/installed: requirements-sbom.txt | $(INSTALLED)
	@$(BIN)/python -m venv $(SBOM)
	@VIRTUAL_ENV=$(SBOM) $(BIN)/uv pip --quiet sync --require-hashes requirements-sbom.txt || $(SBOM)/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes -r requirements-sbom.txt
	@touch $@

bench: bench-tools $(BENCH)/installed bench/node_modules/.installed ## compare speed with the peers': SECTIONS="requests" for some; writes bench/RESULTS.md
	@$(BENCH)/bin/python bench/run.py $(SECTIONS)

# Before anything is installed: a tool that is missing is said at once.
bench-tools:
	@$(PYTHON) bench/tools.py $(SECTIONS)

# An environment of its own: the peers bring along what the gateway does without.
$(BENCH)/installed: requirements-bench.txt pyproject.toml | $(INSTALLED)
	@echo "Installing into $(BENCH) what requirements-bench.txt locks"
	@$(BIN)/python -m venv $(BENCH)
	@VIRTUAL_ENV=$(BENCH) $(BIN)/uv pip --quiet sync --compile-bytecode --require-hashes requirements-bench.txt || $(BENCH)/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes -r requirements-bench.txt
	@$(BENCH)/bin/python -m pip --quiet --disable-pip-version-check install --no-deps --no-build-isolation --editable .
	@touch $@

bench/node_modules/.installed: bench/package.json bench/package-lock.json bench/.npmrc | node
	@echo "Installing into bench/node_modules what bench/package-lock.json locks"
	@cd bench && npm ci --ignore-scripts --loglevel=error
	@touch $@

lock: $(INSTALLED) ## resolve the dependencies again, with hashes, for all Python versions
	$(LOCK) -o requirements.txt
	$(LOCK) --extra dev --constraint requirements.txt -o requirements-dev.txt
	$(LOCK) bench/requirements.in --constraint requirements.txt -o requirements-bench.txt
	echo 'cyclonedx-bom>=7.5,<8' | $(COMPILE) - -o requirements-sbom.txt
	printf '%s\n' 'openapi-generator-cli>=7.26,<7.27' 'openapi-python-client>=0.29,<0.30' 'mypy>=2.4,<3' pydantic python-dateutil urllib3 | $(COMPILE) - -o requirements-clients.txt

dist: $(INSTALLED) ## build the source distribution, and the wheel from it, into dist
	rm -rf dist
	$(BIN)/python -m build --no-isolation

clean: ## remove what the other targets made, except for the data in var
	rm -rf .venv node_modules bench/node_modules tests/clients/node_modules tests/clients/.build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .schemathesis
	find app tests -name __pycache__ -prune -exec rm -rf {} +
