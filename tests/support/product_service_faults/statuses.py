"""Misbehaviours of the answer's status and headers."""

from tests.support.product_service_faults.misbehaviour import Call, misbehaviour, page_of, records

PROBLEM = {"type": "about:blank", "title": "Internal Server Error", "status": 500}


@misbehaviour(from_page=2)
async def error_500_always(call: Call) -> None:
    """Fails whenever it is asked."""
    await call.answer(PROBLEM, 500)


@misbehaviour()
async def error_503_once(call: Call) -> None:
    """One bad moment."""
    if call.number == 1:
        await call.answer(b"", 503)
    else:
        await call.page()


@misbehaviour()
async def rate_limited_once(call: Call) -> None:
    """Too many requests, and how long to wait."""
    if call.number == 2:
        await call.answer(b"", 429, Retry_After="1")
    else:
        await call.page()


@misbehaviour(from_page=2)
async def rate_limited_for_ever(call: Call) -> None:
    """Too many requests, however few they are."""
    await call.answer(b"", 429)


@misbehaviour(from_page=2)
async def rate_limited_until_tomorrow(call: Call) -> None:
    """A wait that would keep a sync running for a day."""
    await call.answer(b"", 429, Retry_After="86400")


@misbehaviour()
async def nonsense_for_a_wait(call: Call) -> None:
    """`Retry-After` that is neither seconds nor a date."""
    if call.number == 1:
        await call.answer(b"", 503, Retry_After="soon; -1")
    else:
        await call.page()


@misbehaviour()
async def unauthorized(call: Call) -> None:
    """Does not know the token."""
    await call.answer(b"", 401, WWW_Authenticate="Bearer")


@misbehaviour(from_page=2)
async def unauthorized_from_page_2_on(call: Call) -> None:
    """The token ran out during the pull."""
    await call.answer(b"", 401)


@misbehaviour()
async def forbidden(call: Call) -> None:
    """Knows the token, which may not read this."""
    await call.answer(b"", 403)


@misbehaviour()
async def not_found(call: Call) -> None:
    """Nothing at the registered address."""
    await call.answer(b"", 404)


@misbehaviour()
async def bad_request_always(call: Call) -> None:
    """Refuses every request as wrong."""
    await call.answer(b"", 400)


@misbehaviour()
async def too_large_until_a_smaller_page_is_asked_for(call: Call) -> None:
    """413 for more than two records at a time."""
    if call.page_size > 2:
        await call.answer(b"", 413)
    else:
        await call.page()


@misbehaviour()
async def moved_to_another_host(call: Call) -> None:
    """A redirect to a host that is not registered."""
    await call.answer(b"", 301, Location="https://elsewhere.example/products")


@misbehaviour(from_page=2)
async def moved_to_the_metadata_address(call: Call) -> None:
    """A redirect to where a cloud keeps its machines' secrets."""
    await call.answer(b"", 302, Location="http://169.254.169.254/latest/meta-data/")


@misbehaviour(from_page=2)
async def no_content(call: Call) -> None:
    """204: success, and nothing."""
    await call.say(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")


@misbehaviour(from_page=2)
async def empty_body(call: Call) -> None:
    """200, and nothing."""
    await call.answer(b"")


@misbehaviour(from_page=2)
async def html_with_200(call: Call) -> None:
    """A login page, or "we'll be back soon", called a success."""
    await call.answer(b"<!DOCTYPE html><title>Back soon</title>", Content_Type="text/html")


@misbehaviour(from_page=2)
async def error_with_200(call: Call) -> None:
    """An error that calls itself a success."""
    await call.answer(PROBLEM)


@misbehaviour()
async def wrong_content_type(call: Call) -> None:
    """JSON that calls itself text: common, and harmless."""
    await call.answer(page_of(records()), Content_Type="text/plain; charset=latin-1")


@misbehaviour()
async def token_echoed(call: Call) -> None:
    """Tells the token back, in the status line's place, a header and the body."""
    said = call.token
    await call.answer({**PROBLEM, "title": said, "errors": [{"title": said, "detail": said}]}, 403, X_Token=said)


@misbehaviour()
async def token_echoed_in_records(call: Call) -> None:
    """Tells the token back where a record should be, and leaves out what a page must have."""
    await call.answer({"items": [call.token], "pagination": call.token})
