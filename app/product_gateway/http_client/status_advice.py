"""Advice for a merchant: the meaning of each status other than 200, and how to correct it."""

from typing import NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

from product_gateway.telemetry.visible_text import visible

LONGEST_ADDRESS = 200  # characters of an address that a message quotes
LOGIN_WORDS = {"login", "log-in", "signin", "sign-in", "sso", "oauth", "authorize", "auth"}


class Advice(NamedTuple):
    """Advice for one status. `meaning` continues "answered 404", `what_to_do` is one or more sentences."""

    meaning: str
    what_to_do: str


_REGISTERED = "Check the registered address: the lists must be right beneath it."
_REGISTER_READER = "Register a token that may read products and collections."
_REGISTER_RIGHT = "Register the right address."
_LOG = ("", "Look into its log,")
_REFUSED = (", so it refuses the request", f"Look into its log for what it refuses. {_REGISTERED}")
_OTHER_SUCCESS = (
    " instead of 200",
    f"Check that it answers 200 with a page, also where the list is empty. {_REGISTERED}",
)
_BY_STATUS = {
    304: (
        " (Not Modified), although the gateway did not ask whether anything has changed",
        "Answer 200 with the page, also in the caches in front of the service.",
    ),
    401: (
        ", so it does not accept the gateway's token",
        "Register a token that may read products and collections, and that has not expired.",
    ),
    402: (", as for a shop or a plan that is not paid for", "Check the account of the product service."),
    403: (", so it does not accept the gateway's token for this list", _REGISTER_READER),
    404: (" instead of 200", _REGISTERED),
    405: (", so GET is not allowed at this address", f"Allow GET. {_REGISTERED}"),
    406: (
        ", although the gateway accepts application/json",
        "Answer every request that has Accept: application/json with JSON.",
    ),
    407: (
        ", so a proxy in front of it asks for credentials of its own",
        "Register an address that needs no proxy, or let the gateway through without such credentials.",
    ),
    408: _LOG,
    410: (", so this address is gone for good", "Register the address of the API's current version."),
    411: (", although a GET has no body and so no length", "Answer GET requests that have no Content-Length."),
    414: (", so the address is too long", "Send shorter cursors, and allow addresses of up to 4,000 characters."),
    415: (", although a GET has no body and so no media type", "Answer GET requests that have no Content-Type."),
    421: (", so this host does not serve the name that was asked for", "Check the registered host name."),
    425: _LOG,
    426: (", so it asks for another protocol", "Answer requests of HTTP/1.1 over https."),
    429: _LOG,
    431: (", so the request's headers are too large for it", "Register a shorter token, or allow larger headers."),
    451: (", so it is blocked for legal reasons, often by country", "Allow requests from where the gateway runs."),
}
_WITHOUT_TOKEN = {
    401: (
        ", and no token is registered for it",
        "Register the token that it expects (product-gateway merchant update --product-service-token-file).",
    ),
    403: (", so it does not accept a request without a token: none is registered", _REGISTER_READER),
}
_PROXY_PAGE = (
    " with an HTML page, as a proxy or a CDN does when the service behind it does not answer",
    "Look into the log of the proxy, and whether the service behind it runs,",
)
_WITH_HTML = {
    403: (
        " with an HTML page, as a firewall or a CDN does",
        "Allow the gateway's requests there; their User-Agent starts with product-gateway/.",
    ),
    **dict.fromkeys((502, 503, 504, *range(520, 531)), _PROXY_PAGE),  # 520 to 530 are Cloudflare's
}


def status_advice(status: int, location: str, content_type: str, *, url: str, has_token: bool) -> Advice:
    """Return the advice for a GET of `url`. `location` and `content_type` are the response's headers."""
    if 300 <= status < 400 and status != 304:
        where, what_to_do = _redirect(url, location)
        return Advice(f"; redirects are not followed{where}", what_to_do)
    known = _BY_STATUS if has_token else _BY_STATUS | _WITHOUT_TOKEN
    if "html" in content_type.lower():
        known = known | _WITH_HTML
    others = _OTHER_SUCCESS if status < 300 else _REFUSED if status < 500 else _LOG
    return Advice(*known.get(status, others))


def _redirect(url: str, location: str) -> tuple[str, str]:
    if not location:
        return (
            ", and this one has no Location, so it leads nowhere",
            "Answer 200 with the page at the address that was asked for.",
        )
    asked = urlsplit(url)
    try:
        target = urlsplit(urljoin(url, location))
        target.port  # noqa: B018 - raises ValueError if it is no number
    except ValueError:
        return ", and the Location of this one is not a valid URL", _REGISTER_RIGHT
    if target.scheme not in ("http", "https") or not target.hostname:
        return ", and this one does not lead to a web address", _REGISTER_RIGHT
    where = _shown(target)
    list_path = "/" + asked.path.rstrip("/").rpartition("/")[2]
    base_path = target.path.rstrip("/").removesuffix(list_path)
    base = _shown(target._replace(path=base_path.replace("//", "/")))  # the URL to register
    if LOGIN_WORDS.intersection(target.path.lower().replace("-", "/").split("/")):
        return (
            f". This one leads to what looks like a log-in page, {where}",
            "Register an address that takes a bearer token.",
        )
    same_name, same_path = asked.hostname == target.hostname, asked.path == target.path
    if same_name and same_path and asked.scheme != target.scheme:
        if target.scheme == "https":
            return ". This one leads from http to https", f"Register the address with https: {base}."
        return (
            ". This one leads from https to plain http",
            "Check that the service knows that its proxy speaks https (X-Forwarded-Proto), and answer 200 there.",
        )
    if same_name and _port(asked) == _port(target):
        if same_path and asked.scheme == target.scheme:
            return (
                ". This one leads back to the same address",
                "Look into what the service wants instead, a cookie or a parameter, and answer without it.",
            )
        if asked.path.rstrip("/") == target.path.rstrip("/") and asked.scheme == target.scheme:
            change, kept = (
                ("adds a slash to", "without") if target.path.endswith("/") else ("removes a slash from", "with")
            )
            return (
                f". This one only {change} the end of the path",
                f"Answer 200 at {asked.path} {kept} the slash: the gateway adds /products and /collections to the "
                "registered address, so that another address does not help.",
            )
        if asked.path.replace("//", "/") == target.path.replace("//", "/"):
            return ". This one only removes a doubled slash", f"Register the address without it: {base}."
    host = where if same_name else f"another host, {where}"
    to_register = "" if base_path == target.path.rstrip("/") else f": {base}"
    return f". This one leads to {host}", f"Register the address that it leads to{to_register}."


def _shown(address: SplitResult) -> str:
    """Return a URL without its user, query and fragment, which may be secret."""
    netloc = address.netloc.rpartition("@")[2]
    return visible(f"{address.scheme}://{netloc}{address.path}"[:LONGEST_ADDRESS])


def _port(address: SplitResult) -> int | None:
    return address.port or {"http": 80, "https": 443}.get(address.scheme)
