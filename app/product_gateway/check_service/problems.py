"""Error bodies that a product service may send: those of the contract and of Bento's public documentation.

The public page shows the string "401" as `status` in the body of any error, and merchants copy it. Such bodies are
harmless, because the gateway reads the status of the response.
"""

import copy
from functools import cache

import jsonschema_rs
import orjson

from product_gateway.check_service.recording_client import JSON
from product_gateway.openapi import documents

PROBLEM_JSON = "application/problem+json"
_STATUS = {
    "anyOf": [
        {"type": "integer", "minimum": 400, "maximum": 599},
        {"type": "string", "pattern": "^[45][0-9]{2}$"},
    ]
}


def contract() -> documents.Document:
    """Return a copy of product-service.yaml that allows these bodies, as application/json too."""
    document = copy.deepcopy(documents.load(documents.PRODUCT_SERVICE))
    document["components"]["schemas"]["Problem"]["properties"]["status"] = copy.deepcopy(_STATUS)
    for response in document["components"]["responses"].values():
        if PROBLEM_JSON in response["content"]:
            response["content"][JSON] = copy.deepcopy(response["content"][PROBLEM_JSON])
    return document


def fault(content: bytes, content_type: str) -> str:
    """Return why an answer is not problem details (RFC 9457); "" if it is."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in (PROBLEM_JSON, JSON):
        return f"The Content-Type is {media_type!r}." if media_type else "There is no Content-Type."
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        return "The body is not JSON."
    if _validator().is_valid(body):
        return ""
    return "The body does not match the schema Problem: type, title and status."


@cache
def _validator() -> jsonschema_rs.Draft4Validator:
    return jsonschema_rs.Draft4Validator(documents.json_schema(contract(), "Problem"))
