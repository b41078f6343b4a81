"""Ask the endpoint as a probe does."""

import http.client
import json
import socket
from dataclasses import dataclass
from typing import Any

from oban_actors import Address, GetAddress, Oban
from tests.support.waiting import wait_until

ANY = {"port": 0, "interval": 0.05}


@dataclass(frozen=True)
class Answered:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: Any
    raw: bytes


def address(oban: Oban) -> Address:
    """Where an instance's endpoint listens."""
    found = oban.ask("health", GetAddress(), timeout=30)
    assert isinstance(found, Address)
    return found


def get(where: Address, path: str, method: str = "GET", host: str | None = None) -> Answered:
    """Ask for a path."""
    connection = http.client.HTTPConnection(where.host, where.port, timeout=30)
    try:
        connection.request(method, path, headers={} if host is None else {"Host": host})
        response = connection.getresponse()
        raw = response.read()
        body = json.loads(raw) if raw else None
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answered(response.status, headers, body, raw)
    finally:
        connection.close()


def connect(where: Address) -> socket.socket:
    """Connect and say nothing."""
    return socket.create_connection((where.host, where.port), timeout=30)


def say(where: Address, request: bytes) -> bytes:
    """Send bytes, and give all that comes until the other side closes."""
    with connect(where) as connection:
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65_536):
            answer += chunk
        return answer


def wait_until_ready(oban: Oban) -> Answered:
    """Wait for 200, and give that answer."""
    where = address(oban)
    wait_until(lambda: get(where, "/ready").status == 200, message="ready")
    return get(where, "/ready")
