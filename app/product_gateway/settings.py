"""Every setting: its name, default and meaning. The only place that reads the environment."""

import ipaddress
import os
import re
import shlex
import stat
from pathlib import Path
from typing import Annotated, Self

# Else Pydantic looks through all that is installed for plugins, which is a fifteenth of every start.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "true")

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from product_gateway.errors import SettingsError

PREFIX = "PRODUCT_GATEWAY_"
LONGEST_PATH_PREFIX = 200
# Unreserved characters alone: nothing that means something in a header, in HTML or in YAML, and no dot segments.
PATH_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+)+")
OFF = "off"  # instead of a rate limit: there is none


def is_path_prefix(text: str) -> bool:
    """Return whether the text can stand in front of a path: `/gw`, `/shops/gw`; no trailing slash, no `//`, no dots."""
    return len(text) <= LONGEST_PATH_PREFIX and PATH_PREFIX.fullmatch(text) is not None


def _readable_file(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if path.stat().st_mode & stat.S_IWOTH:
        raise ValueError(
            f"every user may write to {path} and replace what it holds. Run: chmod o-w {shlex.quote(str(path))}"
        )
    return path


def _rate_limit(text: str) -> str:
    if text != OFF and not re.fullmatch(r"[1-9][0-9]{0,6}/([1-9][0-9]{0,3} ?)?(second|minute|hour|day)s?", text):
        raise ValueError(f"{text[:100]!r} is no limit; write it like 100/minute or 20/5 seconds, or off")
    return text


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


def listed(text: str | None) -> list[str]:
    """What stands between the commas."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _origins(text: str) -> str:
    if text.strip() != "*":
        for each in listed(text):
            _origin(each)
    return text


def _networks(text: str) -> str:
    for each in listed(text):
        _network(each)
    return text


def _host_names(text: str) -> str:
    for each in listed(text):
        if each != "*" and not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?", each):
            raise ValueError(f"{each[:100]!r} is not a host name; write names without a scheme and a port, or *")
    return text


def _base_path(text: str) -> str:
    if not is_path_prefix(text):
        raise ValueError(
            f"{text[:100]!r} is not a path prefix. Write it like /gw or /shops/gw: a slash first, none at the end, and "
            "between slashes at least one letter, digit or . _ ~ - but not . or .. alone; "
            f"{LONGEST_PATH_PREFIX} characters at most. Without a prefix, leave this setting unset"
        )
    return text


ReadableFile = Annotated[Path, AfterValidator(_readable_file)]
RateLimit = Annotated[str, AfterValidator(_rate_limit)]
Origins = Annotated[str, AfterValidator(_origins)]
Networks = Annotated[str, AfterValidator(_networks)]
HostNames = Annotated[str, AfterValidator(_host_names)]
BasePath = Annotated[str, AfterValidator(_base_path)]


def _receiver(url: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", url):
        raise ValueError("this is not the address of an OTLP/HTTP receiver, such as http://localhost:4318")
    return url


Receiver = Annotated[str, AfterValidator(_receiver)]


class Settings(BaseModel):
    """Read from environment variables named PRODUCT_GATEWAY_ and the field's name in capitals."""

    model_config = ConfigDict(frozen=True)

    data_dir: Path = Field(Path("var"), description="Keys and the embedded database")
    database_url: str | None = Field(
        None,
        description="URL of the database, such as postgresql://user@host/name; unset: SQLite in the data directory",
    )
    jwt_public_key_file: ReadableFile | None = Field(
        None,
        description="PEM public key that bearer tokens are checked with; unset: the data directory's own",
    )
    jwks_url: str | None = Field(
        None, pattern="^https?://[^/?#@]+(/|$)", description="Where the token issuer publishes its keys (RFC 7517)"
    )
    jwt_issuer: str = Field("product-gateway", description="The `iss` that tokens must have")
    jwt_audience: str = Field("product-gateway", description="The `aud` that tokens must have")
    jwt_merchant_claim: str = Field("merchant", min_length=1, description="The claim that names the merchant")
    jwt_scope_claim: str | None = Field(
        None,
        description="The claim with the scopes, a string or a list; unset: `scope`, `scp` and `permissions` together",
    )
    jwt_leeway_seconds: float = Field(
        10, ge=0, le=300, description="Seconds that the clock of the token issuer may be ahead (`nbf`, `iat`)"
    )
    secret_key_file: ReadableFile | None = Field(
        None,
        description="Keys (Fernet), one a line: the first encrypts the merchants' own secrets, all decrypt; unset: the "
        "data directory's",
    )
    allow_private_addresses: bool = Field(
        False, description="Let product services, webhooks and the JWKS be on loopback or private addresses"
    )
    worker_concurrency: int = Field(4, ge=1, le=256, description="Syncs that one worker runs at the same time")
    worker_poll_seconds: float = Field(0.5, gt=0, le=60, description="How often an idle worker looks for a sync")
    lease_seconds: float = Field(
        30, ge=1, le=3600, description="How long a sync stays with a worker that is not heard of"
    )
    page_size: int = Field(250, ge=1, le=500, description="Records asked of a product service at once")
    connect_timeout_seconds: float = Field(
        5, gt=0, le=600, description="How long a product service may take to accept a connection"
    )
    read_timeout_seconds: float = Field(
        30, gt=0, le=600, description="How long a product service may send nothing while it answers"
    )
    request_timeout_seconds: float = Field(
        120, gt=0, le=3600, description="How long one request to a product service may take as a whole"
    )
    request_attempts: int = Field(
        6, ge=1, le=20, description="How often a request that may go through later (429, 5xx, broken off) is made"
    )
    retry_wait_seconds: float = Field(
        1,
        gt=0,
        le=10,
        description="Seconds before the second attempt; each further wait is twice as long, up to 30 s, and never "
        "shorter than the service asks for (Retry-After)",
    )
    max_page_bytes: int = Field(
        64 * 1024 * 1024, ge=1024, description="Largest answer of a product service, decompressed"
    )
    max_record_bytes: int = Field(
        1024 * 1024,
        ge=1024,
        description="Largest record that the catalog keeps, as JSON with product ids; larger ones are rejected",
    )
    max_catalog_records: int = Field(
        5_000_000, ge=1, description="Most records of one entity type that a merchant's catalog may have"
    )
    max_catalog_bytes: int = Field(
        10 * 1024**3, ge=1024, description="Most bytes of records of one entity type that a merchant's catalog may have"
    )
    max_pages: int = Field(100_000, ge=1, description="Pages that one sync may read")
    max_sync_seconds: float = Field(
        21_600, gt=0, le=2_592_000, description="Seconds after its start at which a sync that has not ended is FAILED"
    )
    sync_turn_seconds: float = Field(
        60,
        ge=0,
        le=86_400,
        description="Seconds that a sync runs before it gives its slot to another merchant that waits",
    )
    max_lost_workers: int = Field(5, ge=1, le=1000, description="Workers that a sync may lose before it is FAILED")
    max_deleted_percent: int = Field(
        50, ge=0, le=100, description="Share of a catalog of 20 records or more that a sync may remove unasked"
    )
    syncs_per_merchant: int = Field(
        2, ge=1, le=2, description="Syncs of one merchant at the same time; each makes one request at a time"
    )
    webhook_timeout_seconds: float = Field(
        15, gt=0, le=120, description="How long a merchant's webhook may take to answer"
    )
    webhook_retry_seconds: float = Field(
        5,
        gt=0,
        le=3600,
        description="First wait before a webhook is called again; each further one is twice as long, up to 6 h",
    )
    webhook_give_up_hours: float = Field(
        72, gt=0, le=720, description="How long it is tried to deliver a message to a webhook"
    )
    webhooks_at_once: int = Field(
        32, ge=1, le=1000, description="Webhooks that one worker calls at the same time, each merchant's once"
    )
    retention_days: float = Field(90, gt=0, le=36500, description="How long syncs that have ended are kept")
    cancelled_retention_days: float = Field(
        7, gt=0, le=36500, description="The same for cancelled syncs, of which at most the newest 1000 are kept"
    )
    requests_at_once: int = Field(
        256,
        ge=1,
        le=100_000,
        description="Requests that one process serves at once; more are answered 503, with Retry-After",
    )
    rate_limit_per_merchant: RateLimit = Field(
        "6000/minute", description="Requests that one process lets a merchant make; more are answered 429; off: any"
    )
    rate_limit_per_address: RateLimit | None = Field(
        None, description="The same for each address (with IPv6 for each /64), before the token is looked at"
    )
    trusted_proxies: Networks | None = Field(
        None,
        description="Addresses and networks, between commas, whose X-Forwarded-For, X-Forwarded-Proto and "
        "X-Forwarded-Prefix are believed; unset: none",
    )
    public_base_path: BasePath | None = Field(
        None,
        description="Path prefix under which a proxy publishes the gateway, such as /gw; the proxy removes it from "
        "requests; unset: none",
    )
    cors_origins: Origins | None = Field(
        None, description="Origins, between commas, whose pages may read answers in a browser; *: all; unset: none"
    )
    operations_host: str = Field(
        "127.0.0.1", description="The address on which metrics, health and the monitor are to be had"
    )
    operations_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="The port for it; unset: 8090 for serve and demo, 8091 for worker; 0: any free",
    )
    operations_base_path: BasePath | None = Field(
        None, description="The same as PUBLIC_BASE_PATH for the operations port, such as /gw-operations; unset: none"
    )
    operations_host_names: HostNames | None = Field(
        None,
        description="Host names, between commas, under which the operations port may be asked for metrics and health, "
        "besides its addresses; *: all; unset: see docs/operations",
    )
    operator_token_file: ReadableFile | None = Field(
        None, description="The token that opens the monitor to operators; unset: it answers this machine alone"
    )
    docs: bool = Field(True, description="The pages for readers: `/`, `/docs` and `/docs/try`")
    access_log: bool = Field(True, description="One line for each request")
    log_format: str = Field("text", pattern="^(text|json)$", description="Lines for people, or JSON objects")
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least important message")
    validate_responses: bool = Field(
        False,
        description="Check every answer against the spec (for tests: an answer that doesn't fit is a 500)",
    )
    otel_exporter_otlp_endpoint: Receiver | None = Field(
        None,
        description="Where traces go: an OTLP/HTTP receiver, such as http://localhost:4318; unset: nowhere",
    )
    otel_exporter_otlp_traces_endpoint: Receiver | None = Field(
        None,
        description="The same with its whole path, where it is not /v1/traces",
    )

    @model_validator(mode="after")
    def _one_source_of_keys(self) -> Self:
        if self.jwt_public_key_file and self.jwks_url:
            raise ValueError(f"{PREFIX}JWT_PUBLIC_KEY_FILE and {PREFIX}JWKS_URL are both set: unset one of them")
        return self

    @property
    def database(self) -> str:
        """The database's URL, with the embedded default filled in."""
        return self.database_url or f"sqlite:///{self.data_dir / 'gateway.db'}"

    @property
    def traces_endpoint(self) -> str | None:
        """The whole URL that traces are sent to (OpenTelemetry Protocol Exporter, "Endpoint URLs for OTLP/HTTP")."""
        base = self.otel_exporter_otlp_endpoint
        return self.otel_exporter_otlp_traces_endpoint or (base and f"{base.rstrip('/')}/v1/traces")


def environment_name(field: str) -> str:
    """The variable that a field is read from: with our prefix, but for those of OpenTelemetry."""
    return field.upper() if field.startswith("otel_") else PREFIX + field.upper()


def load(**overrides: object) -> Settings:
    """The settings from the environment; `overrides` win. Raises SettingsError with every fault by name."""
    said = {name.upper(): value for name, value in os.environ.items() if value}
    names = {field: environment_name(field) for field in Settings.model_fields}
    found: dict[str, object] = {field: said[name] for field, name in names.items() if name in said}
    try:
        return Settings.model_validate(found | overrides)
    except ValidationError as error:
        raise SettingsError("\n".join(_in_words(fault) for fault in error.errors())) from None


def _in_words(fault: ErrorDetails) -> str:
    message = fault["msg"].removeprefix("Value error, ")
    return f"{environment_name(str(fault['loc'][0]).lower())}: {message}" if fault["loc"] else message


def unknown_names() -> list[str]:
    """Variables with our prefix that are no setting: most often a slip of the pen."""
    known = {environment_name(name) for name in Settings.model_fields}
    return sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known)
