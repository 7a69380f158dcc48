"""status_advice: what a merchant can do about each status, in the sync's detail, for operators and in check-service."""

import pytest
from starlette.responses import Response

from product_gateway.http_client.client import HttpClient
from product_gateway.http_client.status_advice import status_advice
from product_gateway.operations.monitor import remedies
from product_gateway.sync.product_service import ProductService
from tests.support.scripted_answers import TOKEN, Merchant, failure
from tests.support.serving import serve

URL = "https://shop.example/api/products"


def said(status: int, location: str = "", content_type: str = "", *, url: str = URL, has_token: bool = True) -> str:
    """Meaning and advice in one."""
    found = status_advice(status, location, content_type, url=url, has_token=has_token)
    assert found.what_to_do.endswith((".", ","))
    assert not found.meaning.endswith(".")
    return f"answered {status}{found.meaning}. {found.what_to_do}"


@pytest.mark.parametrize("status", [301, 308])
@pytest.mark.parametrize(
    ("url", "location", "words"),
    [
        (URL, f"{URL}/", "only adds a slash to the end of the path. Answer 200 at /api/products without the slash"),
        (URL, "/api/products/", "only adds a slash"),
        (URL, f"{URL}/?page_size=250", "only adds a slash"),
        (f"{URL}/", URL, "only removes a slash from the end of the path. Answer 200 at /api/products/ with the slash"),
        (URL, "", "has no Location, so it leads nowhere"),
        (URL, URL, "leads back to the same address"),
        (URL, "?page_size=1", "leads back to the same address"),
        (
            URL.replace("https", "http"),
            URL,
            "from http to https. Register the address with https: https://shop.example/api",
        ),
        (URL, URL.replace("https", "http"), "from https to plain http. Check"),
        (URL, "https://www.shop.example/api/products", "leads to: https://www.shop.example/api."),
        (URL.replace("https", "http"), f"{URL}/", "leads to https://shop.example/api/products/. Register"),
        (URL, "https://cdn.example/elsewhere", "leads to another host, https://cdn.example/elsewhere. Register"),
        (
            URL,
            "/v2/products",
            "leads to https://shop.example/v2/products. Register the address that it leads to: https://shop.example/v2.",
        ),
        (
            "https://shop.example//api/products",
            URL,
            "a doubled slash. Register the address without it: https://shop.example/api",
        ),
        (URL, "https://id.example/login?next=x", "a log-in page, https://id.example/login. Register"),
        (URL, "https://[::1", "not a valid URL"),
        (URL, "https://shop.example:port/", "not a valid URL"),
        (URL, "mailto:owner@shop.example", "does not lead to a web address"),
    ],
)
def test_a_redirect_is_told_by_where_it_leads(status: int, url: str, location: str, words: str) -> None:
    """The gateway follows none, so the advice must name the address to register, or say that none helps."""
    text = said(status, location, url=url)
    assert words in text
    assert "redirects are not followed" in text


@pytest.mark.parametrize(
    "location", ["https://user:secret@other.example/products?key=secret#secret", "/a\x1b[31m?secret"]
)
def test_a_location_is_shown_without_its_secrets(location: str) -> None:
    """Details end up in front of people and on terminals."""
    text = said(302, location)
    assert "secret" not in text
    assert text.isprintable()


def test_the_case_decides_about_401_and_403() -> None:
    """Another token helps only where there was one."""
    assert "no token is registered for it. Register the token that it expects" in said(401, has_token=False)
    assert "does not accept the gateway's token. Register a token" in said(401)
    assert "does not accept the gateway's token for this list" in said(403)
    assert "a request without a token" in said(403, has_token=False)
    assert "with an HTML page, as a firewall" in said(403, content_type="text/html; charset=UTF-8")


def test_every_other_status_has_advice_of_its_own() -> None:
    """One sentence for all would be wrong for most."""
    statuses = (204, 304, 402, 404, 405, 406, 407, 409, 410, 411, 414, 415, 421, 426, 431, 451, 500)
    texts = {said(each).partition(f"{each}")[2] for each in statuses}
    assert len(texts) == len(statuses)
    html = {said(each, content_type="Text/HTML").partition(f"{each}")[2] for each in (502, 503, 504, 520, 524)}
    assert len(html) == 1
    assert "as a proxy or a CDN does" in html.pop()
    assert "CDN" not in said(503)


@pytest.mark.parametrize(
    ("answer", "token", "words"),
    [
        (Response(status_code=308, headers={"Location": "/products/"}), TOKEN, "redirects its own list (308)"),
        (Response(status_code=302), TOKEN, "redirects its own list (302)"),
        (Response(status_code=301, headers={"Location": "/v2/products"}), TOKEN, "redirects to another address (301)"),
        (Response(status_code=304), TOKEN, "nothing has changed (304)"),
        (Response(status_code=401), None, "none is registered (401)"),
        (Response(status_code=401), TOKEN, "refuses our token (401)"),
        (
            Response("<p>", 403, media_type="text/html"),
            TOKEN,
            "a firewall in front of the product service refuses us (403)",
        ),
        (Response(status_code=404), TOKEN, "no list at the registered address (404)"),
        (Response("<p>", 502, media_type="text/html"), TOKEN, "does not reach the product service behind it (502)"),
        (Response(status_code=500), TOKEN, "answers with an error (500)"),
    ],
)
async def test_an_operator_gets_the_advice_that_fits(answer: Response, token: str | None, words: str) -> None:
    """From the code and the detail that the sync has kept."""
    merchant = Merchant()
    with serve(merchant) as url:
        merchant.answers = [answer]
        async with HttpClient(allow_private_addresses=True) as outbound:
            failed = await failure(ProductService(outbound, url, token, 2, attempts=1))
    assert words in remedies.of(failed.code, failed.detail).words


async def test_a_location_that_repeats_the_token_is_masked() -> None:
    """A service may send anything back."""
    merchant = Merchant()
    with serve(merchant) as url:
        merchant.answers = [Response(status_code=302, headers={"Location": f"https://other.example/{TOKEN}/products"})]
        async with HttpClient(allow_private_addresses=True) as outbound:
            failed = await failure(ProductService(outbound, url, TOKEN, 2, attempts=1))
    assert TOKEN not in failed.detail
    assert "https://other.example/" in failed.detail
