# Python 3.11 or newer and make are enough; `make check` also needs Node 20 or newer for the spec linter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
SECTIONS ?= all
PROOFS ?= without
SPECS := openapi/product-gateway.yaml openapi/product-service.yaml openapi/operations.yaml
DERIVED := .venv/openapi-3.1.yaml
WORKFLOWS := openapi/workflows.arazzo.yaml
TYPES := app/product_gateway/openapi/types.py
LINT := openapi/lint
REDOCLY := REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true $(LINT)/node_modules/.bin/redocly
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade
LOCKED := requirements/runtime.txt
PIP := -m pip --quiet --disable-pip-version-check install

.DEFAULT_GOAL := help
.PHONY: help install run test proofs versions check lint prose types imports specs generate workflows clients compatibility fuzz model chaos replica soak vendor audit sbom bench bench-tools lock dist clean node

help: ## print this help
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 22

install: $(INSTALLED) ## create the environment in .venv (the other targets do this too)

# Install the lock file $(2) into the environment $(1). uv is several times as fast as pip; pip is the fallback where
# uv is not available or cannot use the package index that pip is configured with.
define install
	@echo "Installing $(2) into $(1)"
	@$(1)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(1)
	@{ test -x $(BIN)/uv || { awk '/^[^ #]/ { found = /^uv==/ } found' requirements/dev.txt > $(1)/uv.txt && $(1)/bin/python $(PIP) --only-binary :all: --require-hashes -r $(1)/uv.txt; }; } && VIRTUAL_ENV=$(1) $(BIN)/uv pip --quiet sync --compile-bytecode --require-hashes $(2) || $(1)/bin/python $(PIP) --require-hashes -r $(2)
endef
EDITABLE := $(PIP) --no-deps --no-build-isolation --editable .

$(INSTALLED): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed. Choose one with: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(call install,$(VENV),requirements/dev.txt)
	@$(BIN)/python $(EDITABLE)
	@$(BIN)/python -m compileall -q app tests
	@touch $@

# The environments of the tools that bring many packages along: .venv/bench, .venv/clients and .venv/sbom.
.venv/%/installed: requirements/%.txt pyproject.toml | $(INSTALLED)
	$(call install,.venv/$*,$<)
	@$(if $(filter bench,$*),.venv/$*/bin/python $(EDITABLE))
	@touch $@

%/node_modules/.installed: %/package.json %/package-lock.json %/.npmrc | node
	@echo "Installing $*/package-lock.json into $*/node_modules"
	@cd $* && npm ci --ignore-scripts --loglevel=error
	@touch $@

node:
	@command -v npx >/dev/null && node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' || { echo "Node 20 or newer is needed"; exit 1; }

run: $(INSTALLED) ## start gateway, worker and sample service on this machine; PORT=, OPERATIONS_PORT=, SAMPLE_PORT=
	@$(BIN)/product-gateway demo$(if $(PORT), --port $(PORT))$(if $(OPERATIONS_PORT), --operations-port $(OPERATIONS_PORT))$(if $(SAMPLE_PORT), --sample-port $(SAMPLE_PORT))

# Tests create hundreds of databases: in memory, where Linux has room for them there.
IN_MEMORY = $(shell [ "$$(df -k /dev/shm 2>/dev/null | awk 'END { print $$4 + 0 }')" -gt 8000000 ] && echo TMPDIR=/dev/shm)

# Tests wait more than they compute, so there are three processes for each core. pytest keeps the modules that it rewrites:
# each process would rewrite all of them again for ten seconds where PYTHONDONTWRITEBYTECODE is set.
test: $(INSTALLED) ## run the tests; VENV=folder PYTHON=python3.12 for another version, ARGUMENTS for pytest
	PYTHONDONTWRITEBYTECODE= $(IN_MEMORY) $(BIN)/python -m pytest -n $$((3 * $$(getconf _NPROCESSORS_ONLN))) --dist worksteal --proofs $(PROOFS) $(ARGUMENTS)

proofs: $(INSTALLED) ## run the long tests of documents, pages and the wheel: commands as written, browsers, recipes, compose
	@$(MAKE) --no-print-directory test PROOFS=only

versions: $(INSTALLED) ## run all but the slowest tests on every other Python from 3.11 on that is found here
	@for python in $$($(BIN)/python -m tests.tools.interpreters); do \
	  version=$$($$python -c 'import platform; print(platform.python_version())'); \
	  echo "Tests on Python $$version, $$python"; \
	  $(MAKE) --no-print-directory test PYTHON=$$python VENV=.venv/python$$version ARGUMENTS=--without-slowest \
	  || $(MAKE) --no-print-directory test PYTHON=$$python VENV=.venv/python$$version ARGUMENTS="--without-slowest --last-failed" || exit 1; \
	done

check: lint prose types imports specs ## run every check besides the tests: lint, prose, types, imports, specs

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

prose: $(INSTALLED)
	@$(BIN)/python -m tests.tools.prose

types: $(INSTALLED)
	$(BIN)/mypy

imports: $(INSTALLED)
	$(BIN)/lint-imports --no-logo

specs: $(INSTALLED) $(LINT)/node_modules/.installed
	@$(BIN)/python -c 'from product_gateway.openapi import documents as d, openapi_3_1 as o; print(o.as_yaml(d.load(d.GATEWAY)).decode())' > $(DERIVED)
	$(BIN)/openapi-spec-validator $(SPECS) $(DERIVED)
	@output=$$($(REDOCLY) lint --config $(LINT)/redocly.yaml --lint-config=error $(SPECS) $(DERIVED) $(WORKFLOWS) 2>&1) || { echo "$$output"; exit 1; }
	@echo "Redocly found no problem in $(SPECS) $(DERIVED) $(WORKFLOWS)"
	@$(BIN)/python -m tests.tools.api_changes
	@$(BIN)/datamodel-codegen --output .venv/types.py
	@cmp -s .venv/types.py $(TYPES) || { echo "$(TYPES) differs from the spec. Run: make generate"; exit 1; }

generate: $(INSTALLED) ## write the types of the API's bodies from the spec
	$(BIN)/datamodel-codegen --output $(TYPES)

workflows: $(INSTALLED) $(LINT)/node_modules/.installed ## run the workflows of openapi/workflows.arazzo.yaml against a sandbox, then against planted faults
	@$(BIN)/python -m tests.tools.workflows

clients: .venv/clients/installed tests/clients/node_modules/.installed ## generate clients in seven languages, run them against a sandbox, and score their tolerance
	@$(IN_MEMORY) $(BIN)/python -m tests.tools.generated_clients

compatibility: .venv/clients/installed tests/clients/node_modules/.installed ## run clients of released specs against a sandbox, and today's clients against a reduced one
	@$(IN_MEMORY) $(BIN)/python -m tests.tools.compatibility

fuzz: $(INSTALLED) ## run Schemathesis against the server for longer than the tests do
	FUZZ_EXAMPLES=1000 $(BIN)/python -m pytest tests/api/test_fuzz.py

model: $(INSTALLED) ## check every state of the model of syncs, and print what goes wrong without each of its checks
	$(BIN)/python -m tests.model_checking.check

chaos: $(INSTALLED) ## inject faults for CHAOS_SECONDS (60) on each database, with CHAOS_PROCESSES (1)
	$(BIN)/python -m tests.tools.chaos

replica: $(INSTALLED) ## follow 10,000 syncs by the feed of changes, and read 100,000 records by 1,000 readers, on each database
	REPLICA_STEPS=10000 READERS=1000 READ_RECORDS=100000 $(BIN)/python -m pytest -q -s tests/system/test_replica.py tests/system/test_readers.py

soak: $(INSTALLED) ## run ordinary load for SOAK_SECONDS (600) on each database; nothing may grow
	$(BIN)/python -m tests.tools.soak

vendor: $(INSTALLED) node ## download the vendored files of the pages again and compare them with VENDORED.toml
	@$(BIN)/python -m tests.tools.vendored

audit: $(INSTALLED) ## check the locked packages for known vulnerabilities (needs the internet)
	@$(BIN)/pip-audit --strict --require-hashes --disable-pip --progress-spinner off -r $(LOCKED) -r requirements/dev.txt 2>.venv/audit.log; passed=$$?; tail -n 1 .venv/audit.log; [ $$passed = 0 ] || { echo "Failed: a package has a known vulnerability, or could not be looked up"; exit 1; }

sbom: .venv/sbom/installed ## write a CycloneDX bill of materials of the runtime lock file to dist/sbom.json
	@mkdir -p dist
	@PYTHONWARNINGS=ignore .venv/sbom/bin/cyclonedx-py requirements $(LOCKED) --index-url "" --pyproject pyproject.toml --output-reproducible --of JSON --sv 1.6 --output-file dist/sbom.json
	@echo "dist/sbom.json lists $$(grep -c '"purl"' dist/sbom.json) packages"

bench: bench-tools .venv/bench/installed bench/node_modules/.installed ## compare speed with other systems: SECTIONS="requests" for a part; writes bench/RESULTS.md
	@.venv/bench/bin/python bench/run.py $(SECTIONS)

# Before anything is installed, so that a missing tool is named at once.
bench-tools:
	@$(PYTHON) bench/tools.py $(SECTIONS)

lock: $(INSTALLED) ## resolve the dependencies again, with hashes, for all Python versions
	$(COMPILE) pyproject.toml -o $(LOCKED)
	$(COMPILE) pyproject.toml --extra dev --constraint $(LOCKED) -o requirements/dev.txt
	$(COMPILE) pyproject.toml requirements/bench.in --constraint $(LOCKED) -o requirements/bench.txt
	$(COMPILE) requirements/clients.in --constraint requirements/dev.txt -o requirements/clients.txt
	$(COMPILE) requirements/sbom.in --constraint requirements/dev.txt -o requirements/sbom.txt

dist: $(INSTALLED) ## build the source distribution, and the wheel from it, into dist
	rm -rf dist
	$(BIN)/python -m build --no-isolation

clean: ## remove what the other targets created, except the data in var
	rm -rf .venv $(LINT)/node_modules bench/node_modules tests/clients/node_modules tests/clients/.build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .schemathesis
	find app tests -name __pycache__ -prune -exec rm -rf {} +
