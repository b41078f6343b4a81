"""A TCP proxy that can go silent, as a network does, or cut its connections."""

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.support.ports import HOST, free_port

CHUNK = 65_536


class TcpProxy:
    """Forwards connections to a server until told otherwise; ready when made.

    Attributes:
        host: Where it listens.
        port: Where it listens.
    """

    def __init__(self, port: int, host: str = HOST) -> None:
        """Start it.

        Args:
            port: Port of the server behind it.
            host: Host of the server behind it.
        """
        self._target = (host, port)
        self._open = threading.Event()
        self._open.set()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._closing = False
        self.host = HOST
        self.port = free_port()
        self._listener = socket.create_server((self.host, self.port))
        self._spawn(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def connections(self) -> int:
        """How many connections pass through it now."""
        with self._lock:
            return len(self._sockets) // 2

    def freeze(self) -> None:
        """Forward nothing, neither bytes nor ends; new connections are taken and stay silent."""
        self._open.clear()

    def thaw(self) -> None:
        """Forward what was held back, and what comes."""
        self._open.set()

    def drop(self) -> None:
        """Cut all connections now; new ones are taken as before."""
        with self._lock:
            for end in self._sockets:
                _shut(end)

    def close(self) -> None:
        """Cut all connections and end; may be called again."""
        self._closing = True
        _shut(self._listener)
        self.thaw()
        self.drop()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.wait()
            try:
                server = socket.create_connection(self._target, timeout=10)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            self._join(client, server)

    def _join(self, client: socket.socket, server: socket.socket) -> None:
        ends = (client, server)
        for end in ends:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._sockets.update(ends)
            if self._closing:
                for end in ends:
                    _shut(end)
        forth = self._spawn(self._pump, client, server)
        self._spawn(self._pump, server, client, forth)

    def _pump(
        self, source: socket.socket, sink: socket.socket, other: threading.Thread | None = None
    ) -> None:
        # A reset connection ends a pump as an orderly end does.
        with contextlib.suppress(OSError):
            while chunk := source.recv(CHUNK):
                self._open.wait()
                sink.sendall(chunk)
        self._open.wait()
        _shut(sink)
        _shut(source)
        if other is not None:
            other.join()
            with self._lock:
                self._sockets -= {source, sink}
            source.close()
            sink.close()

    def _spawn(self, target: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=target, args=arguments, name="proxy", daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread


def _shut(end: socket.socket) -> None:
    # Not connected any more is as good as shut.
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
