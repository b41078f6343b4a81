"""As much of HTTP as the endpoint speaks: one GET or HEAD for each connection, answered in JSON."""

import ipaddress
import json
from collections.abc import Collection
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

MOST_HEAD = 8192
"""Bytes that a request's line and headers may have."""

METHODS = ("GET", "HEAD")

_END = b"\r\n\r\n"
_VERSIONS = ("HTTP/1.0", "HTTP/1.1")
_LINE_WORDS = 3


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for.

    Attributes:
        path: without the query.
        head: whether only the headers are wanted.

    """

    path: str
    head: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered.

    Attributes:
        status: HTTP's.
        body: of JSON.
        headers: besides those that every answer has.

    """

    status: HTTPStatus
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)

    def encode(self, *, head: bool = False) -> bytes:
        """Write it as it goes over the wire."""
        body = json.dumps(self.body).encode()
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Connection": "close",
            **self.headers,
        }
        lines = [f"HTTP/1.1 {self.status.value} {self.status.phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        start = "\r\n".join(lines).encode("ascii") + _END
        return start if head else start + body


class Refused(Exception):
    """A request that is not answered as it asks; `answer` says why, in words of our own."""

    def __init__(self, status: HTTPStatus, why: str = "", **headers: str) -> None:
        said = f"{status.phrase}: {why}" if why else status.phrase
        self.answer = Answer(status, {"error": said}, headers)
        super().__init__(said)


def complete(received: bytes) -> bool:
    """Tell whether a request has been received.

    Raises:
        Refused: it is longer than any sensible one.

    """
    end = received.find(_END)
    if (end < 0 and len(received) > MOST_HEAD) or end > MOST_HEAD:
        raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    return end >= 0


def parse(received: bytes, hosts: Collection[str]) -> Request:
    """Read a request.

    Args:
        received: all of its head.
        hosts: names that it may be for, in lower case, besides addresses and `localhost`.

    Raises:
        Refused: it can't be read, is no GET or HEAD, or for another host.

    """
    head = received.partition(_END)[0].decode("latin-1")
    line, *fields = head.split("\r\n")
    words = line.split(" ")
    if len(words) != _LINE_WORDS or words[2] not in _VERSIONS or not words[1].startswith("/"):
        raise Refused(HTTPStatus.BAD_REQUEST)
    method, target, version = words
    if method not in METHODS:
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, Allow=", ".join(METHODS))
    names = [each.partition(":") for each in fields]
    if not all(mark and name and name == name.strip() for name, mark, _ in names):
        raise Refused(HTTPStatus.BAD_REQUEST)
    asked = [value.strip() for name, _, value in names if name.lower() == "host"]
    if len(asked) > 1 or (not asked and version != "HTTP/1.0"):
        raise Refused(HTTPStatus.BAD_REQUEST)
    if asked and not _ours(asked[0], hosts):
        why = "the name asked for is none of the option health.hosts"
        raise Refused(HTTPStatus.MISDIRECTED_REQUEST, why)
    return Request(target.partition("?")[0], head=method == "HEAD")


def _ours(host: str, hosts: Collection[str]) -> bool:
    # A page in a browser can make its own name lead here, but has to say that name.
    name = host.lower()
    bare = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        return bare == "localhost" or bare in hosts
    return True
