"""Requests that are read, and those that are refused."""

import json
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oban_actors.health.http import MOST_HEAD, Answer, Refused, Request, complete, parse


def read(request: str, hosts: tuple[str, ...] = ()) -> Request | int:
    """Read a request, or give the status that it is refused with."""
    try:
        return parse(f"{request}\r\n\r\n".encode("latin-1"), hosts)
    except Refused as refused:
        return int(refused.answer.status)


HOST = "\r\nHost: localhost"


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (f"GET /live HTTP/1.1{HOST}", Request("/live", head=False)),
        (f"HEAD /ready?verbose=1 HTTP/1.1{HOST}", Request("/ready", head=True)),
        ("GET /live HTTP/1.0", Request("/live", head=False)),
        ("GET /live HTTP/1.1", 400),
        (f"GET /live HTTP/1.1{HOST}{HOST}", 400),
        (f"GET /live HTTP/2.0{HOST}", 400),
        (f"GET  /live HTTP/1.1{HOST}", 400),
        (f"GET http://localhost/live HTTP/1.1{HOST}", 400),
        (f"GET /live HTTP/1.1{HOST}\r\nno colon", 400),
        (f"GET /live HTTP/1.1{HOST}\r\n folded: x", 400),
        (f"GET /live HTTP/1.1{HOST}\r\nHost : evil", 400),
        (f"POST /live HTTP/1.1{HOST}", 405),
        (f"get /live HTTP/1.1{HOST}", 405),
        ("", 400),
        ("GET", 400),
    ],
)
def test_requests(request_: str, expected: Request | int) -> None:
    """One line, headers with a colon, one Host."""
    assert read(request_) == expected


@pytest.mark.parametrize(
    ("host", "taken"),
    [
        ("127.0.0.1:4000", True),
        ("10.0.0.7", True),
        ("[::1]:4000", True),
        ("LocalHost:4000", True),
        ("jobs.internal:4000", True),
        ("Jobs.Internal", True),
        ("evil.example:4000", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_a_name_that_is_not_ours_is_refused(host: str, taken: bool) -> None:  # noqa: FBT001 (a case)
    """A page whose name leads to this machine (DNS rebinding) gets nothing."""
    found = read(f"GET /tree HTTP/1.1\r\nHost: {host}", ("jobs.internal",))

    assert (found == 421) is not taken


def test_a_head_that_is_too_long_is_refused() -> None:
    """Whether or not it ever ends."""
    assert complete(b"GET / HTTP/1.1\r\n") is False
    assert complete(b"GET / HTTP/1.1\r\n\r\n") is True
    for long in (b"x" * (MOST_HEAD + 1), b"x" * (MOST_HEAD + 1) + b"\r\n\r\n"):
        with pytest.raises(Refused) as refused:
            complete(long)
        assert refused.value.answer.status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


def test_an_answer_on_the_wire() -> None:
    """JSON that no browser guesses about or keeps; HEAD has the same headers."""
    answer = Answer(HTTPStatus.OK, {"status": "ok"})
    head, _, body = answer.encode().partition(b"\r\n\r\n")

    assert json.loads(body) == {"status": "ok"}
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 200 OK"
    assert set(lines[1:]) == {
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    }
    assert answer.encode(head=True) == head + b"\r\n\r\n"


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reading(noise: bytes) -> None:
    """Whatever comes is read or refused."""
    found = read(noise.decode("latin-1"))

    assert 400 <= found < 500 if isinstance(found, int) else found.path.startswith("/")
