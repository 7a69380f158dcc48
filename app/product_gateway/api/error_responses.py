"""The table that maps exceptions to error responses."""

import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException

from product_gateway import errors
from product_gateway.api.syncs import SYNCS
from product_gateway.http.responses import Response
from product_gateway.openapi.types import ErrorResponse
from product_gateway.telemetry import logs

logger = logging.getLogger(__name__)

REALM = 'Bearer realm="product-gateway"'

Headers = dict[str, str]


def _not_authenticated(error: errors.NotAuthenticated) -> Headers:
    if not error.presented:
        return {"WWW-Authenticate": REALM}
    return {"WWW-Authenticate": f'{REALM}, error="invalid_token", error_description="{_description(error.detail)}"'}


def _description(detail: str) -> str:
    """Return the text restricted to the characters of error_description (RFC 6750 §3) and to a length of 500."""
    plain = detail.replace('"', "'").replace("`", "'").replace("\\", "/")
    return "".join(each if " " <= each <= "~" else "?" for each in plain)[:500]


def _missing_scope(error: errors.MissingScope) -> Headers:
    return {"WWW-Authenticate": f'{REALM}, error="insufficient_scope", scope="{error.scope}"'}


def _already_active(error: errors.SyncAlreadyActive) -> Headers:
    return {"Retry-After": str(error.active.seconds_left), "Link": f'<{SYNCS}{error.active.id}>; rel="monitor"'}


# The first match counts, so subclasses come before their base class.
TABLE: list[tuple[type[errors.GatewayError], HTTPStatus, Callable[[Any], Headers]]] = [
    (errors.InvalidRequest, HTTPStatus.BAD_REQUEST, lambda _: {}),
    (errors.NotAuthenticated, HTTPStatus.UNAUTHORIZED, _not_authenticated),
    (errors.MissingScope, HTTPStatus.FORBIDDEN, _missing_scope),
    (errors.NotAllowed, HTTPStatus.FORBIDDEN, lambda _: {}),
    (errors.NotFound, HTTPStatus.NOT_FOUND, lambda _: {}),
    (errors.GenerationGone, HTTPStatus.GONE, lambda _: {}),
    (errors.NotPublishable, HTTPStatus.PRECONDITION_FAILED, lambda _: {}),
    (errors.SyncAlreadyActive, HTTPStatus.TOO_MANY_REQUESTS, _already_active),
    (errors.RateLimited, HTTPStatus.TOO_MANY_REQUESTS, lambda error: {"Retry-After": str(error.seconds)}),
    (errors.Overloaded, HTTPStatus.SERVICE_UNAVAILABLE, lambda _: {"Retry-After": "1"}),
    (errors.Unavailable, HTTPStatus.SERVICE_UNAVAILABLE, lambda _: {"Retry-After": "5"}),
]


def describe_error(error: Exception) -> Response[ErrorResponse]:
    """Map an exception to a response. Log unexpected ones and answer a generic 500."""
    for kind, status, headers in TABLE:
        if isinstance(error, kind):
            if isinstance(error, errors.Unavailable) and not isinstance(error, errors.Overloaded):
                logger.warning("A request was not served: %s", error.with_cause)
            if isinstance(error, errors.SyncAlreadyActive):
                logs.bind(sync_id=str(error.active.id))
            return error_answer(status, error.detail, headers(error))
    if isinstance(error, HTTPException) and 400 <= error.status_code < 500:
        return error_answer(HTTPStatus(error.status_code), str(error.detail), dict(error.headers or {}))
    logger.error("A request failed.", exc_info=error)
    return error_answer(HTTPStatus.INTERNAL_SERVER_ERROR, "The gateway failed to answer this request.", {})


def error_answer(status: HTTPStatus, detail: str, headers: Headers) -> Response[ErrorResponse]:
    title = TITLES.get(status, status.phrase)
    return Response({"error": [{"status": str(status.value), "title": title, "detail": detail}]}, status.value, headers)


# Python before 3.13 has the phrase of an older RFC.
TITLES = {HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Content Too Large"}
