"""Every setting: its name, default and meaning. The only module that reads the environment."""

import errno
import ipaddress
import os
import re
import shlex
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from product_gateway.errors import SettingsError

PREFIX = "PRODUCT_GATEWAY_"
LONGEST_PATH_PREFIX = 200
# Unreserved characters only, without dot segments: safe in headers, HTML and YAML.
PATH_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+)+")
OFF = "off"  # no rate limit

_T = TypeVar("_T")


def is_path_prefix(text: str) -> bool:
    """Return whether `text` can precede a path: `/gw`, `/shops/gw`; no trailing slash, no `//`, no dot segments."""
    return len(text) <= LONGEST_PATH_PREFIX and PATH_PREFIX.fullmatch(text) is not None


def is_http_address(text: str, forbidden: str) -> bool:
    """Return whether `text` is an http or https URL with a host, and without any of the `forbidden` characters."""
    try:
        parts = urlsplit(text)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return fits and text.isprintable() and not set(text) & set(forbidden)


def listed(text: str | None) -> list[str]:
    """Return the parts of a comma-separated list, stripped, without empty ones."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def status_fault(path: Path, error: OSError) -> str:
    """Return why the system does not say what is at a path. A text that is too long for one may be a secret."""
    if error.errno == errno.ENAMETOOLONG:
        return "it is too long for the path of a file"
    return f"{path} cannot be read: {error.strerror}"


def file_fault(path: Path, *, must_be_ordinary: bool = False) -> str | None:
    """Return why there is no file to read at the path, None if there may be one.

    `must_be_ordinary`: it is read more than once, so it cannot be a pipe.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return f"there is no file {path}"
    except OSError as error:
        return status_fault(path, error)
    if stat.S_ISDIR(mode):
        return f"{path} is a directory"
    if must_be_ordinary and not stat.S_ISREG(mode):
        return f"{path} is not an ordinary file, which can be read more than once"
    return None


def _readable_file(path: Path) -> Path:
    if reason := file_fault(path, must_be_ordinary=True):
        raise ValueError(reason)
    if path.stat().st_mode & stat.S_IWOTH:
        raise ValueError(
            f"every user may write to {path} and replace what it holds. Run: chmod o-w {shlex.quote(str(path))}"
        )
    return path


def _key_set_url(url: str) -> str:
    if not re.match(r"https?://[^/?#@]+(/|$)", url):
        raise ValueError(
            "this is not the address of a key set: https://, a host and a path, without a user, such as "
            "https://id.example/.well-known/jwks.json"
        )
    return url


def _rate_limit(text: str) -> str:
    if text != OFF and not re.fullmatch(r"[1-9][0-9]{0,6}/([1-9][0-9]{0,3} ?)?(second|minute|hour|day)s?", text):
        raise ValueError(f"{text[:100]!r} is no limit; write it like 100/minute or 20/5 seconds, or off")
    return text


def _base_path(text: str) -> str:
    if not is_path_prefix(text):
        raise ValueError(
            f"{text[:100]!r} is not a path prefix. Write it like /gw or /shops/gw: a slash first, none at the end, and "
            "between slashes at least one letter, digit or . _ ~ - but not . or .. alone; "
            f"{LONGEST_PATH_PREFIX} characters at most. Without a prefix, leave this setting unset"
        )
    return text


def _receiver(url: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", url):
        raise ValueError("this is not the address of an OTLP/HTTP receiver, such as http://localhost:4318")
    return url


def _origin(text: str) -> None:
    match = re.fullmatch(r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?", text)
    if match is None or (match[1], match[3]) in (("http", ":80"), ("https", ":443")):
        raise ValueError(
            f"{text[:100]!r} is not an origin as browsers send it: scheme://host or scheme://host:port in small "
            "letters, without a path and without the scheme's own port; or * by itself, for all"
        )


def _network(text: str) -> None:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{error}; write addresses and networks like 10.0.0.7 or 10.0.0.0/8") from None


def _host_name(text: str) -> None:
    if text != "*" and not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?", text):
        raise ValueError(f"{text[:100]!r} is not a host name; write names without a scheme and a port, or *")


def _each(check: Callable[[str], None], *, alone: str | None = None) -> AfterValidator:
    """Return a validator that checks every part of a comma-separated list, unless the text is `alone`."""

    def validate(text: str) -> str:
        if text.strip() != alone:
            for part in listed(text):
                check(part)
        return text

    return AfterValidator(validate)


ReadableFile = Annotated[Path, AfterValidator(_readable_file)]
KeySetUrl = Annotated[str, AfterValidator(_key_set_url)]
RateLimit = Annotated[str, AfterValidator(_rate_limit)]
BasePath = Annotated[str, AfterValidator(_base_path)]
Receiver = Annotated[str, AfterValidator(_receiver)]
Origins = Annotated[str, _each(_origin, alone="*")]
Networks = Annotated[str, _each(_network)]
HostNames = Annotated[str, _each(_host_name)]


def _field(default: _T, meaning: str, **rules: Any) -> _T:
    """Return a field with its default, its description for users and its limits."""
    field: _T = Field(default, description=meaning, **rules)
    return field


class Settings(BaseSettings):
    """All settings, from environment variables named PRODUCT_GATEWAY_ and the field's name in capitals.

    OpenTelemetry's own variables have no prefix.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_prefix=PREFIX, env_ignore_empty=True)

    data_dir: Path = _field(Path("var"), "Directory of the keys and the embedded database")
    database_url: str | None = _field(
        None, "Database URL, such as postgresql://user@host/name; unset: SQLite in the data directory"
    )
    jwt_public_key_file: ReadableFile | None = _field(
        None, "PEM public key that verifies bearer tokens; unset: the key in the data directory"
    )
    jwks_url: KeySetUrl | None = _field(None, "URL of the token issuer's keys (RFC 7517)")
    jwt_issuer: str = _field(
        "product-gateway", "Required `iss` of tokens; if it is a URL, clients find it in the OAuth metadata"
    )
    jwt_audience: str = _field("product-gateway", "Required `aud` of tokens")
    jwt_merchant_claim: str = _field("merchant", "Claim that names the merchant", min_length=1)
    jwt_scope_claim: str | None = _field(
        None, "Claim with the scopes, a string or a list; unset: `scope`, `scp` and `permissions` together"
    )
    jwt_leeway_seconds: float = _field(
        10, "Seconds that the token issuer's clock may be ahead (`nbf`, `iat`)", ge=0, le=300
    )
    secret_key_file: ReadableFile | None = _field(
        None,
        "Fernet keys, one per line: the first encrypts merchants' secrets, all decrypt; unset: the key in "
        "the data directory",
    )
    allow_private_addresses: bool = _field(
        False, "Allow product services, webhooks and the JWKS URL on loopback and private addresses"
    )
    worker_concurrency: int = _field(4, "Concurrent syncs of one worker", ge=1, le=256)
    worker_poll_seconds: float = _field(0.5, "Seconds between two looks of a worker that is not woken", gt=0, le=60)
    lease_seconds: float = _field(
        30, "Seconds without a heartbeat before another worker takes over a sync", ge=1, le=3600
    )
    page_size: int = _field(250, "Records requested from a product service per page, at first", ge=1, le=1000)
    max_page_size: int = _field(
        1000,
        "Most records requested per page, to which pages grow while they come quickly and completely. The contract "
        "demands no more than 1000 of a product service",
        ge=1,
        le=5000,
    )
    connect_timeout_seconds: float = _field(
        5, "Seconds that a product service may take to accept a connection", gt=0, le=600
    )
    read_timeout_seconds: float = _field(
        30, "Seconds that a product service may send nothing during a response", gt=0, le=600
    )
    request_timeout_seconds: float = _field(
        120, "Seconds that one request to a product service may take in total", gt=0, le=3600
    )
    request_attempts: int = _field(
        6, "Attempts for a request that may succeed later (429, 5xx, connection lost)", ge=1, le=20
    )
    retry_wait_seconds: float = _field(
        1,
        "Seconds before the second attempt; each further wait is twice as long, up to 30 s, and never "
        "shorter than the service asks for (Retry-After)",
        gt=0,
        le=10,
    )
    max_page_bytes: int = _field(64 * 1024 * 1024, "Largest response of a product service, decompressed", ge=1024)
    max_record_bytes: int = _field(
        1024 * 1024, "Largest record in the catalog, as JSON with product ids; larger ones are rejected", ge=1024
    )
    max_catalog_records: int = _field(5_000_000, "Most records of one entity type in a merchant's catalog", ge=1)
    max_catalog_bytes: int = _field(
        10 * 1024**3, "Most bytes of records of one entity type in a merchant's catalog", ge=1024
    )
    max_pages: int = _field(100_000, "Most pages that one sync may read", ge=1)
    max_sync_seconds: float = _field(
        21_600, "Seconds after its start at which a sync that is still running ends FAILED", gt=0, le=2_592_000
    )
    sync_turn_seconds: float = _field(
        60, "Seconds that a sync runs before it gives its slot to a waiting merchant", ge=0, le=86_400
    )
    max_lost_workers: int = _field(5, "Workers that a sync may lose before it ends FAILED", ge=1, le=1000)
    max_deleted_percent: int = _field(
        50, "Largest share of a catalog of 20 records or more that a sync may remove without permission", ge=0, le=100
    )
    syncs_per_merchant: int = _field(
        2, "Concurrent syncs of one merchant; each makes one request at a time", ge=1, le=2
    )
    webhook_timeout_seconds: float = _field(15, "Seconds that a merchant's webhook may take to answer", gt=0, le=120)
    webhook_retry_seconds: float = _field(
        5, "Seconds before a webhook is called again; each further wait is twice as long, up to 6 h", gt=0, le=3600
    )
    webhook_give_up_hours: float = _field(
        72, "Hours after which an undelivered webhook message is dropped", gt=0, le=720
    )
    webhooks_at_once: int = _field(
        32, "Concurrent webhook calls of one worker, at most one per merchant", ge=1, le=1000
    )
    retention_days: float = _field(90, "Days that ended syncs are kept", gt=0, le=36500)
    catalog_history_days: float = _field(
        7, "Days that generations of the catalog are kept, for changes and reverts", gt=0, le=36500
    )
    cancelled_retention_days: float = _field(
        7, "Days that cancelled syncs are kept, at most the newest 1000 of each entity type", gt=0, le=36500
    )
    requests_at_once: int = _field(
        256, "Concurrent requests of one process; more get 503 with Retry-After", ge=1, le=100_000
    )
    rate_limit_per_merchant: RateLimit = _field(
        "6000/minute", "Requests of one merchant to one gateway, with all its processes; more get 429; off: no limit"
    )
    rate_limit_per_address: RateLimit | None = _field(
        None,
        "Requests of one address (IPv6: of one /64) to one gateway, with all its processes, before authentication; "
        "unset: no limit",
    )
    trusted_proxies: Networks | None = _field(
        None,
        "Comma-separated addresses and networks of proxies whose X-Forwarded-For, X-Forwarded-Proto, "
        "X-Forwarded-Host and X-Forwarded-Prefix are trusted; unset: none",
    )
    public_base_path: BasePath | None = _field(
        None,
        "Path prefix under which a proxy publishes the gateway, such as /gw; the proxy removes it from "
        "requests; unset: none",
    )
    cors_origins: Origins | None = _field(
        None, "Comma-separated origins whose pages may read responses in a browser; *: all; unset: none"
    )
    operations_host: str = _field("127.0.0.1", "Address of the operations port: metrics, health and the monitor")
    operations_port: int | None = _field(
        None, "Operations port; unset: 8090 for serve and demo, 8091 for worker; 0: any free port", ge=0, le=65535
    )
    operations_base_path: BasePath | None = _field(
        None, "Path prefix under which a proxy publishes the operations port, such as /gw-ops; unset: none"
    )
    operations_host_names: HostNames | None = _field(
        None,
        "Comma-separated host names that metrics and health requests may use, besides addresses; *: all; "
        "unset: see docs/operations",
    )
    operator_token_file: ReadableFile | None = _field(
        None, "File with the token that opens the monitor to operators; unset: only this machine may use it"
    )
    docs: bool = _field(
        True, "Serve the documentation pages `/`, `/docs`, `/docs/try` and `/docs/product-service`, and the guides"
    )
    access_log: bool = _field(True, "Log one line for each request")
    log_format: Literal["text", "json"] = _field("text", "Format of log lines: text or json")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = _field(
        "INFO", "Lowest level that is logged: DEBUG, INFO, WARNING or ERROR"
    )
    validate_responses: bool = _field(
        False, "Check every response against the spec (for tests: an invalid response becomes a 500)"
    )
    otel_exporter_otlp_endpoint: Receiver | None = _field(
        None,
        "URL of an OTLP/HTTP receiver for traces, such as http://localhost:4318; unset: no traces",
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
    )
    otel_exporter_otlp_traces_endpoint: Receiver | None = _field(
        None,
        "Complete URL for traces, if its path is not /v1/traces",
        validation_alias="OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    )

    @model_validator(mode="after")
    def _one_source_of_keys(self) -> Self:
        if self.jwt_public_key_file and self.jwks_url:
            raise ValueError(f"{PREFIX}JWT_PUBLIC_KEY_FILE and {PREFIX}JWKS_URL are both set: unset one of them")
        return self

    @property
    def database(self) -> str:
        """The database URL; unset: SQLite in the data directory."""
        return self.database_url or f"sqlite:///{self.data_dir / 'gateway.db'}"

    @property
    def traces_endpoint(self) -> str | None:
        """The whole URL for traces (OpenTelemetry Protocol Exporter, "Endpoint URLs for OTLP/HTTP")."""
        base = self.otel_exporter_otlp_endpoint
        return self.otel_exporter_otlp_traces_endpoint or (base and f"{base.rstrip('/')}/v1/traces")


class ClientSettings(BaseSettings):
    """The settings of the client commands."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_prefix=PREFIX, env_ignore_empty=True)

    url: str | None = _field(None, "URL of the gateway, for the client commands")
    token: str | None = _field(None, "Bearer token, for the client commands", repr=False)


def context_file() -> Path:
    """Return the file of the saved context (XDG Base Directory Specification: a relative path is ignored)."""
    chosen = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    return (chosen if chosen.is_absolute() else Path.home() / ".config") / "product-gateway" / "context.json"


def environment_name(field: str) -> str:
    """Return the environment variable of a field."""
    return field.upper() if field.startswith("otel_") else PREFIX + field.upper()


def load(**overrides: Any) -> Settings:
    """Read the settings from the environment; `overrides` win. Raises SettingsError naming every invalid setting."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise SettingsError("\n".join(_describe(fault) for fault in error.errors())) from None


_KINDS = {"int_parsing": "a whole number", "float_parsing": "a number", "bool_parsing": "true or false"}


def _describe(fault: ErrorDetails) -> str:
    message = fault["msg"].removeprefix("Value error, ")
    given = repr(fault["input"])[:100]
    if fault["type"] in _KINDS:
        message = f"{given} is not {_KINDS[fault['type']]}"
    elif message.startswith("Input should be "):
        message = message.replace("Input", given, 1)
    return f"{environment_name(str(fault['loc'][0]).lower())}: {message}" if fault["loc"] else message


SANDBOX_JSON = "SANDBOX_JSON"
"""The variable with the description of a running sandbox, for the clients that are tested against it."""


def running_sandbox() -> str | None:
    """Return the description of the sandbox that this process is to use, if its parent runs one."""
    return os.environ.get(SANDBOX_JSON)


def with_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of this process with further variables, for a child process."""
    return {**os.environ, **variables}


def unknown_names() -> list[str]:
    """Return variables that have our prefix and are no setting, most often because of a typing error."""
    known = {environment_name(name) for name in (*Settings.model_fields, *ClientSettings.model_fields)}
    return sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known)
