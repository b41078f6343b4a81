"""A TCP proxy that can go silent, delay and lose, as a network does, or cut its connections."""

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.support.ports import HOST, free_port

CHUNK = 65_536

Weather = Callable[[], float | None]
"""Says of each chunk how many seconds it is delayed; None: it is lost, and its connection too."""


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
        self._gates: set[threading.Event] = set()
        self._closed = threading.Event()
        self._weather: Weather | None = None
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

    @property
    def flowing(self) -> int:
        """How many of those were not left stranded."""
        with self._lock:
            return sum(gate.is_set() for gate in self._gates)

    def freeze(self) -> None:
        """Forward nothing, neither bytes nor ends; new connections are taken and stay silent."""
        self._open.clear()

    def thaw(self) -> None:
        """Forward what was held back, and what comes."""
        self._open.set()

    def strand(self) -> None:
        """Let the connections that there are be silent for ever; new ones work."""
        with self._lock:
            for gate in self._gates:
                gate.clear()

    def worsen(self, weather: Weather | None) -> None:
        """Let every chunk from now on be delayed or lost as this says; None: no longer."""
        self._weather = weather

    def drop(self) -> None:
        """Cut all connections now; new ones are taken as before."""
        with self._lock:
            for gate in self._gates:
                gate.set()
            for end in self._sockets:
                _shut(end)

    def close(self) -> None:
        """Cut all connections and end; may be called again."""
        self._closing = True
        self._closed.set()
        _shut(self._listener)
        self.thaw()
        self.drop()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def passing(self, source: socket.socket, chunk: bytes) -> None:
        """See what an end has sent, before it goes on; there to be overridden."""

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
        ends, gate = (client, server), threading.Event()
        gate.set()
        for end in ends:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._sockets.update(ends)
            self._gates.add(gate)
            if self._closing:
                for end in ends:
                    _shut(end)
        forth = self._spawn(self._pump, client, server, gate)
        self._spawn(self._pump, server, client, gate, forth)

    def _pump(
        self,
        source: socket.socket,
        sink: socket.socket,
        gate: threading.Event,
        other: threading.Thread | None = None,
    ) -> None:
        # A reset connection ends a pump as an orderly end does.
        with contextlib.suppress(OSError):
            while (chunk := source.recv(CHUNK)) and self._gets_through():
                self._open.wait()
                gate.wait()
                self.passing(source, chunk)
                sink.sendall(chunk)
        self._open.wait()
        gate.wait()
        _shut(sink)
        _shut(source)
        if other is not None:
            other.join()
            with self._lock:
                self._sockets -= {source, sink}
                self._gates.discard(gate)
            source.close()
            sink.close()

    def _gets_through(self) -> bool:
        delay = self._weather() if self._weather is not None else 0.0
        if delay:
            self._closed.wait(delay)
        return delay is not None

    def _spawn(self, target: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=target, args=arguments, name="proxy", daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread


def _shut(end: socket.socket) -> None:
    # Not connected any more is as good as shut.
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
