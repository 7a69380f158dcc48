# Only Python 3.11+ and make are assumed; `make check` also wants Node 20+ for the spec linter.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
LOCK := $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

.DEFAULT_GOAL := help
.PHONY: help install run test check lint types imports specs generate fuzz audit lock dist clean

help: ## print this
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

$(INSTALLED): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; say which one with: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

install: $(INSTALLED) ## make the environment in .venv (the other targets do it too)

lock: install ## resolve the dependencies again, with hashes, for all Python versions
	$(LOCK) --upgrade -o requirements.txt
	$(LOCK) --upgrade --extra dev --constraint requirements.txt -o requirements-dev.txt

CODEGEN := $(BIN)/datamodel-codegen --input openapi/product-gateway.yaml --input-file-type openapi --output-model-type typing.TypedDict --target-python-version 3.11 --openapi-scopes schemas --enum-field-as-literal all --disable-timestamp --use-schema-description --strict-nullable --no-use-closed-typed-dict --formatters ruff-format --custom-file-header '"""The bodies of the API as types. Generated from openapi/product-gateway.yaml by `make generate`: never edit."""'

generate: $(INSTALLED) ## write api_types.py from the spec
	$(CODEGEN) --output app/product_gateway/api_types.py
