"""The access log and the worker's log of real processes."""

import re
import sqlite3
from contextlib import closing

import httpx2

from tests.support.deployment import API, Deployment, ended
from tests.support.log_lines import raw, serving
from tests.support.merchants import client, headers, open_shops

UUID7 = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


def test_the_access_log_names_request_merchant_and_sync(sqlite_deployment: Deployment) -> None:
    """Support must find the sync from a request id, and both from a merchant."""
    open_shops(sqlite_deployment, "http://127.0.0.1:1", ["m"])
    with serving(sqlite_deployment, "text") as (url, log), client(sqlite_deployment, url, "m") as merchant:
        put = merchant.put(f"{API}/sync/PRODUCT")
        again = merchant.put(f"{API}/sync/PRODUCT", headers={"X-Request-Id": "complaint-7"})
        gone = merchant.delete(f"{API}/sync/PRODUCT")
        refused = httpx2.get(f"{url}{API}/products?access_token=abcdefgh")
        nowhere = httpx2.get(f"{url}/nothing?access_token=abcdefgh")
        lines = log.requests(5)
    wanted = {
        "client": "127.0.0.1",
        "merchant": "m",
        "sync_id": put.json()["data"]["id"],
        "path": f"{API}/sync/PRODUCT",
    }
    for line, answer, more in zip(
        lines,
        (put, again, gone, refused, nowhere),
        (
            {**wanted, "method": "PUT", "operation": "enqueueSync"},
            {**wanted, "method": "PUT", "operation": "enqueueSync", "request_id": "complaint-7"},
            {**wanted, "method": "DELETE", "operation": "cancelSync"},
            {"client": "127.0.0.1", "method": "GET", "operation": "listProducts", "path": f"{API}/products"},
            {"client": "127.0.0.1", "method": "GET", "path": "/nothing"},
        ),
        strict=True,
    ):
        given = {name: line.pop(name, None) for name in ("timestamp", "level", "event", "logger", "ms", "status")}
        assert line == {"request_id": answer.headers["X-Request-Id"], **more}
        assert (given["level"], str(given["status"])) == ("info", str(answer.status_code))
        assert 0 <= float(str(given["ms"])) < 30_000
    assert [each.status_code for each in (put, again, gone, refused, nowhere)] == [202, 429, 202, 401, 404]


FIT = ["a", "A-z_0.9~+/=", "x" * 128]
UNFIT = [b"", b"x" * 129, b"a b", b"a\tb", b'"', b"\xff", b"a\x1b[31m", b"{}", b"a,b", "é".encode()]


def test_a_valid_request_id_is_repeated_and_any_other_is_replaced(sqlite_deployment: Deployment) -> None:
    """The client's header appears in responses and logs."""
    with serving(sqlite_deployment, "json") as (url, log):
        for each in FIT:
            assert httpx2.get(f"{url}/x", headers={"X-Request-Id": each}).headers["X-Request-Id"] == each
        for unfit in UNFIT:
            request = b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-Id: " + unfit + b"\r\n\r\n"
            found = re.search(rb"(?i)^x-request-id: (.*)\r$", raw(url, request), re.MULTILINE)
            assert found is None or UUID7.fullmatch(found[1].decode()), f"{unfit!r} became {found[1]!r}"
        ids = [each["request_id"] for each in log.lines() if each["event"] == "answered"]
    assert ids[:3] == FIT
    assert len(ids) >= len(FIT) + 4, "most of those that are unfit are still requests"
    assert all(UUID7.fullmatch(each) for each in ids[3:])
    assert len(set(ids)) == len(ids)


def test_a_hostile_path_cannot_forge_a_log_line(sqlite_deployment: Deployment) -> None:
    """The path is logged as sent, without control characters that a terminal would obey."""
    paths = [
        b"/%0a%0dx",
        b"/\x1b[2J",
        b"/x\xe2\x80\xa8y",
        b"/\x9b31m",
        b'/"}',
        b"/a=b\xc2\xa0merchant=x",
        b"/" + b"y" * 9000,
    ]
    with serving(sqlite_deployment, "text") as (url, log):
        for path in paths:
            raw(url, b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        found = [each for each in log.lines() if each["event"] == "answered"]
    assert found
    for each in found:
        assert "merchant" not in each
        assert len(each["path"]) <= 200
        assert each["path"].startswith("/")


def test_only_failing_probes_are_logged(sqlite_deployment: Deployment) -> None:
    """Successful probes every few seconds would fill the log."""
    with serving(sqlite_deployment, "json") as (url, log):
        for _ in range(3):
            assert httpx2.get(f"{url}/health/live").status_code == 200
            assert httpx2.get(f"{url}/health/ready").status_code == 200
        assert httpx2.get(f"{url}/health/live?x=1").status_code == 400
        (line,) = log.requests(1)
    assert (line["operation"], line["status"]) == ("getLiveness", 400)


def test_the_access_log_can_be_switched_off(sqlite_deployment: Deployment) -> None:
    """A proxy may keep an access log already."""
    sqlite_deployment.environment["PRODUCT_GATEWAY_ACCESS_LOG"] = "false"
    with serving(sqlite_deployment, "json") as (url, log):
        assert httpx2.get(f"{url}/x").status_code == 404
        assert [each for each in log.lines() if each["event"] == "answered"] == []


def test_each_log_line_of_a_worker_names_its_sync(sqlite_deployment: Deployment) -> None:
    """Four syncs run at once in one worker; a search for one must find exactly its lines."""
    names = ["m1", "m2", "m3"]
    with sqlite_deployment.sample_service("--records", "30", "--delay", "0.05") as service:
        open_shops(sqlite_deployment, service, names)
        open_shops(sqlite_deployment, "http://127.0.0.1:1", ["bad"])
        sqlite_deployment.environment |= {"PRODUCT_GATEWAY_PAGE_SIZE": "10", "PRODUCT_GATEWAY_MAX_PAGE_SIZE": "10"}
        sqlite_deployment.environment["PRODUCT_GATEWAY_REQUEST_ATTEMPTS"] = "1"
        with serving(sqlite_deployment, "json", "--with-worker") as (url, log):
            syncs = {}
            for name in [*names, "bad"]:
                answer = httpx2.put(f"{url}{API}/sync/PRODUCT", headers=headers(sqlite_deployment, name))
                syncs[name] = answer.json()["data"]["id"]
            for name, sync_id in syncs.items():
                with client(sqlite_deployment, url, name) as merchant:
                    ended(merchant, {"id": sync_id})
                begun, *_, end = lines = log.of_sync(sync_id)
                assert begun["event"] == "The sync begins, attempt 1."
                failed = "The sync FAILED, PRODUCT_SERVICE_UNREACHABLE: "
                assert end["event"].startswith(failed if name == "bad" else "The sync SUCCEEDED after ")
                about = {(each["merchant"], each["entity_type"]) for each in lines}
                assert about == {(name, "PRODUCT")}
                assert not any("request_id" in each or "operation" in each for each in lines)


def test_an_unexpected_error_is_logged_as_one_json_object(sqlite_deployment: Deployment) -> None:
    """The object contains the traceback and the request id of the response."""
    open_shops(sqlite_deployment, "http://127.0.0.1:1", ["m"])
    path = sqlite_deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"].removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("UPDATE merchants SET platform = 'UNKNOWN'")
        connection.commit()
    with serving(sqlite_deployment, "json") as (url, log), client(sqlite_deployment, url, "m") as merchant:
        answer = merchant.get(f"{API}/products")
        log.requests(1)
        of_request = [each for each in log.lines() if each.get("request_id") == answer.headers["X-Request-Id"]]
    assert answer.status_code == 500
    assert [each["event"] for each in of_request] == ["A request failed.", "answered"]
    assert of_request[0]["exception"].startswith("Traceback (most recent call last):\n")
