"""The operations of the API's spec, for tests of each."""

import pytest

from product_gateway.openapi import documents
from tests.support.contract import DOCUMENT


def example_of(path: str, document: documents.Document = DOCUMENT) -> str:
    """Return the path with the spec's examples."""
    for parameter in document["paths"][path].get("parameters", []):
        found = documents.resolve(document, parameter)
        path = path.replace(f"{{{found['name']}}}", str(found["example"]))
    return path


OPERATIONS = [(method.upper(), example_of(path), each) for path, method, each in documents.operations(DOCUMENT)]
SECURED = [each for each in OPERATIONS if each[2].get("security", DOCUMENT["security"])]

Operation = tuple[str, str, documents.Document]
each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each[2]["operationId"])
each_secured = pytest.mark.parametrize("operation", SECURED, ids=lambda each: each[2]["operationId"])
