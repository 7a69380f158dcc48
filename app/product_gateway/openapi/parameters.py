"""Request validation: an operation's parameters, compiled from the spec once, parsed at every request."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

from connexion.decorators.parameter import pythonic
from connexion.middleware.request_validation import (
    RequestValidationAPI,
    RequestValidationMiddleware,
    RequestValidationOperation,
)
from pydantic import Field, TypeAdapter, ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from product_gateway.errors import InvalidRequest
from product_gateway.http.context import request_context
from product_gateway.openapi import documents

PLACES = ("path", "query", "header")
TYPES = {"string": str, "integer": int, "number": float, "boolean": bool}
# Keyword of a schema -> argument of pydantic's Field.
CONSTRAINTS = {
    "minimum": "ge",
    "maximum": "le",
    "minLength": "min_length",
    "maxLength": "max_length",
    "minItems": "min_length",
    "maxItems": "max_length",
    "pattern": "pattern",
}
OTHER_KEYWORDS = {"type", "format", "enum", "items", "default", "title", "description", "example"}

Headers = Iterable[tuple[bytes, bytes]]


# By the format of a schema, or else its type: the form of the text, its conversion, and what another text is.
CONVERSIONS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "integer": (r"-?(0|[1-9][0-9]{0,17})", int, "not an integer of at most 18 digits"),
    "number": (r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,2})?", float, "not a number"),
    "boolean": ("true|false", "true".__eq__, "neither true nor false"),
    "string": ("(?s:.*)", str, ""),
    "uuid": (r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", str, "not a UUID"),
}


class Parameter:
    """One parameter. Arrays are separated by commas (`explode: false`)."""

    def __init__(self, definition: documents.Document) -> None:
        schema = definition["schema"]
        self.name: str = definition["name"]
        self.argument: str = pythonic(self.name)
        self.required: bool = definition.get("required", False)
        self.default = schema.get("default")
        self.lenient: bool = definition.get("x-never-refused", False)  # such as Prefer, RFC 7240 §2
        self.allows_empty: bool = definition.get("allowEmptyValue", False)  # an HTML form sends empty fields, too
        kind = "Header" if definition["in"] == "header" else f"{definition['in'].capitalize()} parameter"
        self.label = f"{kind} {self.name}"
        self._array = schema["type"] == "array"
        single = schema["items"] if self._array else schema
        form, self._converter, self._fault = CONVERSIONS[single.get("format", single["type"])]
        self._has_form = re.compile(form).fullmatch
        self._type: TypeAdapter[Any] = TypeAdapter(_type(schema))

    def parse(self, text: str) -> Any:
        """Return the value, or the default for an empty text if that is allowed. Raise InvalidRequest."""
        if self.allows_empty and not text:
            return self.default
        try:
            value = [self._convert(part) for part in text.split(",")] if self._array else self._convert(text)
            return self._type.validate_python(value)
        except ValidationError as error:
            # Its message has a subject of its own: "Input should be …", "String should have …".
            requirement = error.errors(include_url=False)[0]["msg"].partition(" ")[2]
            raise InvalidRequest(f"{self.label}: {text[:100]!r} {requirement}.") from None
        except ValueError as error:
            raise InvalidRequest(f"{self.label}: {error}") from None

    def _convert(self, text: str) -> Any:
        if not self._has_form(text):
            raise ValueError(f"{text[:100]!r} is {self._fault}.")
        return self._converter(text)

    def parse_leniently(self, text: str, before: Any) -> Any:
        """Append one more header line to the list `before` (RFC 9110 §5.3). Ignore the line if it is invalid."""
        try:
            return self.parse(text if before is None else f"{before},{text}")
        except InvalidRequest:
            return before


def _type(schema: documents.Document) -> Any:
    """Return the schema as a type with constraints, for pydantic. It is loaded for the settings anyway."""
    if unsupported := schema.keys() - CONSTRAINTS.keys() - OTHER_KEYWORDS:
        raise NotImplementedError(f"keywords in the schema of a parameter: {sorted(unsupported)}")
    kind: Any = TYPES.get(schema["type"])
    if "enum" in schema:
        literal: Any = Literal
        kind = literal[tuple(schema["enum"])]
    elif schema["type"] == "array":
        kind = list[_type(schema["items"])]  # type: ignore[misc]
    constraints: Any = {name: schema[keyword] for keyword, name in CONSTRAINTS.items() if keyword in schema}
    return Annotated[kind, Field(**constraints)] if constraints else kind


class Parameters:
    """All parameters of one operation. Unknown query parameters are refused."""

    def __init__(self, definitions: list[documents.Document]) -> None:
        unsupported = [each["name"] for each in definitions if each["in"] not in PLACES]
        if unsupported:
            raise NotImplementedError(f"parameters in cookies: {unsupported}")
        self.headers = {
            each["name"].lower().encode(): Parameter(each) for each in definitions if each["in"] == "header"
        }
        self.path = [Parameter(each) for each in definitions if each["in"] == "path"]
        self.query = {each["name"]: Parameter(each) for each in definitions if each["in"] == "query"}
        self._defaults = {each.argument: each.default for each in (*self.query.values(), *self.headers.values())}

    def parse(self, path: Mapping[str, str], query: bytes, headers: Headers) -> dict[str, Any]:
        """Return the values by Python name; an absent parameter has its default or None. Raise InvalidRequest."""
        arguments = {each.argument: each.parse(path[each.name]) for each in self.path}
        arguments.update(self._defaults)
        if query:
            arguments.update(self._parse_query(query))
        if self.headers:
            arguments.update(self._parse_headers(headers))
        for each in (*self.query.values(), *self.headers.values()):
            if each.required and arguments[each.argument] is None:
                raise InvalidRequest(f"{each.label} is missing.")
        return arguments

    def _parse_headers(self, headers: Headers) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        for name, value in headers:
            parameter = self.headers.get(name)
            if parameter is None:
                continue
            text = value.decode("latin-1")
            if parameter.lenient:
                arguments[parameter.argument] = parameter.parse_leniently(text, arguments.get(parameter.argument))
            elif parameter.argument in arguments:
                raise InvalidRequest(f"{parameter.label} is given more than once.")
            else:
                arguments[parameter.argument] = parameter.parse(text)
        return arguments

    def _parse_query(self, query: bytes) -> dict[str, Any]:
        try:
            pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=100)
        except UnicodeDecodeError:
            raise InvalidRequest("The query is not percent-encoded UTF-8.") from None
        except ValueError:
            raise InvalidRequest("The query has more than 100 parameters.") from None
        arguments: dict[str, Any] = {}
        for name, text in pairs:
            parameter = self.query.get(name)
            if parameter is None:
                known = ", ".join(self.query) or "none"
                raise InvalidRequest(f"There is no query parameter {name[:100]!r} here; known: {known}.")
            if parameter.argument in arguments:
                raise InvalidRequest(f"The query parameter {name} is given more than once.")
            arguments[parameter.argument] = parameter.parse(text)
        return arguments


class CompiledOperation(RequestValidationOperation):  # type: ignore[misc]
    """Validation of the requests of one operation."""

    def __init__(self, next_app: ASGIApp, **kwargs: Any) -> None:
        super().__init__(next_app, **kwargs)
        self._parameters = Parameters(self._operation.parameters)
        if self._operation.request_body:
            raise NotImplementedError("request bodies: no operation has one yet")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Store the operation's arguments in the request context. Raise InvalidRequest."""
        arguments = self._parameters.parse(scope["path_params"], scope["query_string"], scope["headers"])
        request_context(scope).arguments = arguments
        await self.next_app(scope, receive, send)


class CompiledValidationAPI(RequestValidationAPI):  # type: ignore[misc]
    """A RequestValidationAPI of compiled operations."""

    def make_operation(self, operation: Any) -> CompiledOperation:
        """Override: Connexion calls this for each operation of the spec."""
        return CompiledOperation(self.next_app, operation=operation)


class RequestValidation(RequestValidationMiddleware):  # type: ignore[misc]
    """Connexion's request validation over compiled operations."""

    api_cls = CompiledValidationAPI
