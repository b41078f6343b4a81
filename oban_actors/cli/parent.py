"""Parent: supervises worker processes; it has no connection to the database."""

import contextlib
import logging
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from oban_actors.actors.clock import real_monotonic
from oban_actors.cli.fleet import Action, Fleet, Hangs, Kill, Start, Tell
from oban_actors.signals import hurries, stop_signals

logger = logging.getLogger("oban_actors")


@dataclass(slots=True)
class _Worker:
    """A process and the parent's end of its link."""

    process: subprocess.Popen[bytes]
    link: socket.socket


class Parent:
    """Starts worker processes, starts those again that die, and stops them in order.

    Args:
        words: the command that a worker runs, without what tells it that it is one.
        fleet: decides.

    """

    def __init__(self, words: Sequence[str], fleet: Fleet) -> None:
        self._words = words
        self._fleet = fleet
        self._workers: dict[int, _Worker] = {}
        self._selector = selectors.DefaultSelector()

    def run(self) -> int:
        """Run until told to stop, or until it gives up; the exit code.

        Raises:
            ValueError: it is not called in the main thread.

        """
        with _signals() as wakes:
            self._selector.register(wakes, selectors.EVENT_READ)
            try:
                self._do(self._fleet.begin())
                while not self._fleet.over:
                    self._wait(wakes)
            finally:
                # Where this failed, they end as they do when the parent is killed.
                for worker in self._workers.values():
                    worker.link.close()
                self._selector.close()
        if self._fleet.why is not None:
            logger.error("gave up: %s", self._fleet.why)
        return self._fleet.code

    # Events

    def _wait(self, wakes: socket.socket) -> None:
        due = self._fleet.wake_at
        left = None if due is None else max(0.0, due - real_monotonic())
        for key, _ in self._selector.select(left):
            if key.fileobj is wakes:
                self._on_signals(wakes.recv(4096))
            else:
                self._on_link(key.data)
        self._reap()
        self._do(self._fleet.tick(real_monotonic()))

    def _on_signals(self, numbers: bytes) -> None:
        for number in numbers:
            # What else has a handler in this process is no affair of its workers.
            if number in stop_signals():
                logger.info("%s: workers stop", signal.Signals(number).name)
                self._do(self._fleet.signal(real_monotonic(), hurry=hurries(number)))

    def _on_link(self, index: int) -> None:
        worker = self._workers.get(index)
        if worker is None:
            return
        try:
            said = worker.link.recv(4096)
        except OSError:
            said = b""
        if not said:
            # It ends; how, its exit code says.
            with contextlib.suppress(KeyError):
                self._selector.unregister(worker.link)
            return
        self._fleet.lives(index, real_monotonic())
        if b"ready" in said:
            logger.info("worker %d runs, process %d", index, worker.process.pid)
            self._do(self._fleet.ready(index))
        if b"ending" in said:
            self._fleet.ends(index, real_monotonic())

    def _reap(self) -> None:
        for index, worker in list(self._workers.items()):
            code = worker.process.poll()
            if code is None:
                continue
            del self._workers[index]
            with contextlib.suppress(KeyError):
                self._selector.unregister(worker.link)
            worker.link.close()
            how = _how(code)
            logger.log(logging.WARNING if code else logging.INFO, "worker %d %s", index, how)
            self._do(self._fleet.ended(index, code, how, real_monotonic()))

    # Actions

    def _do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Start(index):
                    self._try_start(index)
                case Tell(index, word):
                    with contextlib.suppress(OSError):
                        self._workers[index].link.sendall(f"{word}\n".encode())
                case Kill(index):
                    self._workers[index].process.kill()
                case Hangs(index, seconds):
                    logger.error("worker %d shows no sign of life for %.0f s", index, seconds)

    def _try_start(self, index: int) -> None:
        try:
            self._start(index)
        except OSError as error:
            how = f"could not be started: {error}"
            logger.warning("worker %d %s", index, how)
            self._do(self._fleet.unstarted(index, how, real_monotonic()))

    def _start(self, index: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = subprocess.Popen(  # noqa: S603 (this program, with the words it was given)
                    [
                        *(sys.executable, "-m", "oban_actors", *self._words),
                        f"--worker-link={theirs.fileno()}",
                        f"--worker-index={index}",
                    ],
                    pass_fds=[theirs.fileno()],
                    # Ctrl-C is the parent's affair, which stops them in order.
                    process_group=0,
                )
            except BaseException:
                ours.close()
                raise
        self._workers[index] = _Worker(process, ours)
        self._selector.register(ours, selectors.EVENT_READ, index)


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


@contextmanager
def _signals() -> Iterator[socket.socket]:
    """Give a socket with a byte for each signal that came; the handlers of before come back."""

    def noted(number: int, frame: FrameType | None) -> None:
        """Do nothing: the byte is written before this is called."""

    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    numbers = (*stop_signals(), signal.SIGCHLD)
    # First, or a signal that comes between the two is heard by nobody.
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    before = {number: signal.signal(number, noted) for number in numbers}
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        reader.close()
        writer.close()
