"""Advice for a merchant: the meaning of each status other than 200, and how to correct it."""

from typing import NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

from product_gateway.telemetry.visible_text import visible

LONGEST_ADDRESS = 200  # characters of an address that a message quotes
LOGIN_WORDS = ("login", "log-in", "signin", "sign-in", "sso", "oauth", "authorize", "auth")

# Statuses of a proxy whose backend does not answer; 520 to 530 are Cloudflare's.
FROM_A_PROXY = (502, 503, 504, *range(520, 531))


class Advice(NamedTuple):
    """Advice for one status. `meaning` continues "answered 404", `what_to_do` is one or more sentences."""

    meaning: str
    what_to_do: str


_REGISTERED = "Check the registered address: the lists must be right beneath it."
_OTHERS = {
    402: (", as for a shop or a plan that is not paid for", "Check the account of the product service."),
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
    410: (", so this address is gone for good", "Register the address of the API's current version."),
    411: (", although a GET has no body and so no length", "Answer GET requests that have no Content-Length."),
    414: (", so the address is too long", "Send shorter cursors, and allow addresses of up to 4,000 characters."),
    415: (
        ", although a GET has no body and so no media type",
        "Answer GET requests that have no Content-Type.",
    ),
    421: (", so this host does not serve the name that was asked for", "Check the registered host name."),
    426: (", so it asks for another protocol", "Answer requests of HTTP/1.1 over https."),
    431: (", so the request's headers are too large for it", "Register a shorter token, or allow larger headers."),
    451: (
        ", so it is blocked for legal reasons, often by country",
        "Allow requests from where the gateway runs.",
    ),
}


def status_advice(status: int, location: str, content_type: str, *, url: str, has_token: bool) -> Advice:
    """Return the advice for a GET of `url`. `location` and `content_type` are the response's headers."""
    html = "html" in content_type.lower()
    if status == 304:
        return Advice(
            " (Not Modified), although the gateway did not ask whether anything has changed",
            "Answer 200 with the page, also in the caches in front of the service.",
        )
    if 300 <= status < 400:
        return _redirect(url, location)
    if status == 401:
        if not has_token:
            return Advice(
                ", and no token is registered for it",
                "Register the token that it expects (product-gateway merchant update --product-service-token-file).",
            )
        return Advice(
            ", so it does not accept the gateway's token",
            "Register a token that may read products and collections, and that has not expired.",
        )
    if status == 403:
        if html:
            return Advice(
                " with an HTML page, as a firewall or a CDN does",
                "Allow the gateway's requests there; their User-Agent starts with product-gateway/.",
            )
        whose = "the gateway's token for this list" if has_token else "a request without a token: none is registered"
        return Advice(
            f", so it does not accept {whose}",
            "Register a token that may read products and collections.",
        )
    if status in (408, 425, 429):
        return Advice("", "Look into its log,")
    if status >= 500:
        if status in FROM_A_PROXY and html:
            return Advice(
                " with an HTML page, as a proxy or a CDN does when the service behind it does not answer",
                "Look into the log of the proxy, and whether the service behind it runs,",
            )
        return Advice("", "Look into its log,")
    if 200 <= status < 300:
        return Advice(
            " instead of 200",
            f"Check that it answers 200 with a page, also where the list is empty. {_REGISTERED}",
        )
    meaning, what_to_do = _OTHERS.get(status, _OTHERS[404])
    return Advice(meaning, what_to_do)


def _redirect(url: str, location: str) -> Advice:
    followed = "; redirects are not followed"
    if not location:
        return Advice(
            "; redirects are not followed, and this one has no Location, so it leads nowhere",
            "Answer 200 with the page at the address that was asked for.",
        )
    asked = urlsplit(url)
    try:
        target = urlsplit(urljoin(url, location))
        target.port  # noqa: B018 - raises ValueError if it is no number
    except ValueError:
        return Advice(f"{followed}, and the Location of this one is not a valid URL", "Register the right address.")
    if target.scheme not in ("http", "https") or not target.hostname:
        return Advice(f"{followed}, and this one does not lead to a web address", "Register the right address.")
    where = _shown(target)
    same_host = (asked.hostname, _port(asked)) == (target.hostname, _port(target))
    if any(word in target.path.lower().replace("-", "/").split("/") for word in LOGIN_WORDS):
        return Advice(
            f"; redirects are not followed. This one leads to what looks like a log-in page, {where}",
            "Register an address that takes a bearer token.",
        )
    if asked.hostname == target.hostname and asked.path == target.path and asked.scheme != target.scheme:
        if target.scheme == "https":
            return Advice(
                "; redirects are not followed. This one leads from http to https",
                f"Register the address with https: {_base(asked, target)}.",
            )
        return Advice(
            "; redirects are not followed. This one leads from https to plain http",
            "Check that the service knows that its proxy speaks https (X-Forwarded-Proto), and answer 200 there.",
        )
    if same_host and asked.scheme == target.scheme and asked.path == target.path:
        return Advice(
            "; redirects are not followed. This one leads back to the same address",
            "Look into what the service wants instead, a cookie or a parameter, and answer without it.",
        )
    if same_host and asked.scheme == target.scheme and asked.path.rstrip("/") == target.path.rstrip("/"):
        added = target.path.endswith("/")
        return Advice(
            f"; redirects are not followed. This one only {'adds a slash to' if added else 'removes a slash from'} "
            "the end of the path",
            f"Answer 200 at {asked.path} {'without' if added else 'with'} the slash: the gateway adds /products "
            "and /collections to the registered address, so that another address does not help.",
        )
    if asked.path.replace("//", "/") == target.path.replace("//", "/") and same_host:
        return Advice(
            "; redirects are not followed. This one only removes a doubled slash",
            f"Register the address without it: {_base(asked, target)}.",
        )
    host = where if asked.hostname == target.hostname else f"another host, {where}"
    return Advice(
        f"; redirects are not followed. This one leads to {host}",
        f"Register the address that it leads to{_registered(asked, target)}.",
    )


def _list_path(asked: SplitResult) -> str:
    return "/" + asked.path.rstrip("/").rpartition("/")[2]


def _base(asked: SplitResult, target: SplitResult) -> str:
    """Return the URL to register: the target without the path of the list."""
    path = target.path.rstrip("/").removesuffix(_list_path(asked))
    return _shown(target._replace(path=path.replace("//", "/")))


def _registered(asked: SplitResult, target: SplitResult) -> str:
    return f": {_base(asked, target)}" if target.path.rstrip("/").endswith(_list_path(asked)) else ""


def _shown(address: SplitResult) -> str:
    """Return a URL without its user, query and fragment, which may be secret."""
    netloc = address.netloc.rpartition("@")[2]
    return visible(f"{address.scheme}://{netloc}{address.path}"[:LONGEST_ADDRESS])


def _port(address: SplitResult) -> int | None:
    return address.port or {"http": 80, "https": 443}.get(address.scheme)
