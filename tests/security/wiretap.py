"""Everything that is sent to PostgreSQL as SQL, read from the wire, whoever sends it."""

import json
import re
import socket
import struct
import threading
from collections.abc import Iterable, Iterator

from tests.support.proxy import TcpProxy

# Left to right, so that what stands in one of them begins none of the others.
_PIECE = re.compile(
    r"""
    (?P<comment>--[^\n]*|/\*.*?\*/)
    | (?<![\w$])[eE]'(?P<escaped>(?:[^'\\]|''|\\.)*)'
    | '(?P<text>(?:[^']|'')*)'
    | "(?P<name>(?:[^"]|"")*)"
    | (?<![\w$])\$(?P<tag>\w*)\$(?P<dollar>.*?)\$(?P=tag)\$
    """,
    re.DOTALL | re.VERBOSE,
)
_PLAIN_START = 196608


class Wiretap(TcpProxy):
    """A proxy that keeps the text of each statement; the connections through it have no TLS."""

    def __init__(self, port: int, host: str) -> None:
        self._guard = threading.Lock()
        self._buffers: dict[socket.socket, bytes] = {}
        self._begun: set[socket.socket] = set()
        self._statements: list[str] = []
        super().__init__(port, host)

    @property
    def statements(self) -> list[str]:
        """What was sent until now."""
        with self._guard:
            return list(self._statements)

    def passing(self, source: socket.socket, chunk: bytes) -> None:
        """Read what a client has sent."""
        if source.getpeername()[1] == self._target[1]:
            return
        with self._guard:
            self._buffers[source] = self._buffers.get(source, b"") + chunk
            while self._take(source):
                pass

    def _take(self, client: socket.socket) -> bool:
        """Take one message of a client's, if it is there as a whole."""
        data, kind = self._buffers[client], 1 if client in self._begun else 0
        if len(data) < kind + 4:
            return False
        end = kind + struct.unpack_from("!i", data, kind)[0]
        if len(data) < end:
            return False
        body = data[kind + 4 : end]
        self._buffers[client] = data[end:]
        if not kind:
            if struct.unpack_from("!i", body)[0] == _PLAIN_START:
                self._begun.add(client)
        elif data[:1] == b"Q":
            self._statements.append(body.rstrip(b"\0").decode())
        elif data[:1] == b"P":
            self._statements.append(body.split(b"\0")[1].decode())
        return True


def quoted_and_not(statement: str) -> tuple[list[str], str]:
    """Take a statement apart: what stands in quotes, as it is meant, and all else."""
    found: list[str] = []

    def piece(match: re.Match[str]) -> str:
        if match["comment"] is not None:
            return match[0]
        if match["escaped"] is not None:
            found.append(re.sub(r"\\(.)|'(')", r"\1\2", match["escaped"], flags=re.DOTALL))
        elif match["text"] is not None:
            found.append(match["text"].replace("''", "'"))
        elif match["name"] is not None:
            found.append(match["name"].replace('""', '"'))
        else:
            found.append(match["dollar"])
        return " "

    bare = _PIECE.sub(piece, statement)
    return found, bare


def loose(statement: str, canary: str, texts: Iterable[str]) -> list[str]:
    """Give what a statement has of hostile texts other than whole and in quotes.

    Args:
        statement: as it was sent.
        canary: stands in each of the texts.
        texts: all that were given.

    """
    quoted, bare = quoted_and_not(statement)
    # The longest first, as one may be a part of another.
    forms = sorted({form for text in texts for form in _forms(text)}, key=len, reverse=True)
    broken = [bare] if canary in bare or canary in _unescaped(bare) else []
    for each in quoted:
        rest = each
        for form in forms:
            rest = rest.replace(form, "")
        if canary in rest or canary in _unescaped(rest):
            broken.append(each)
    return broken


def _forms(text: str) -> Iterator[str]:
    """Give the ways in which a text may stand in a literal: in JSON, in an array, in both."""
    for plain in (text, *_in_json(text)):
        yield plain
        yield from _in_json(plain)
        yield plain.replace("\\", "\\\\").replace('"', '\\"')


def _in_json(text: str) -> Iterator[str]:
    for ascii_only in (True, False):
        yield json.dumps(text, ensure_ascii=ascii_only)[1:-1]


def _unescaped(text: str) -> str:
    return re.sub(r"\\+u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text)
