"""What a worker process does: runs one job after the other, until it is told to stop or alone."""

import os
import queue
import signal
import threading
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from oban_actors.queues.remote import load, perform_here
from oban_actors.running import Running
from oban_actors.signals import stop_signals

ORPHANED = 3
"""Exit code of a process whose parent is gone."""

LOADED = "loaded"
"""What it says when it has imported a worker's module, or could not."""

COMPLETED = "completed"
"""What it says, with the run's number, when a worker has completed its job."""

BEGUN = "begun"
"""What it says before it runs a job: from then on the job has been tried."""

GARBLED = 4
"""Exit code of a process that can't read what it is sent."""


def child_main(connection: "Connection[Any, Any]") -> None:
    """Serve the parent at the other end of the connection.

    It sends `("load", module, worker)`, which is answered by `LOADED`, and
    `("run", number, module, worker, payload)`, and meanwhile perhaps `("cancel", number, reason)`;
    each run is answered by `BEGUN`, perhaps by `(COMPLETED, number)`, and by its outcome.
    `("stop",)` ends the process in order, and the end of the parent at once: what runs here is
    nobody's then, and will run somewhere else.
    """
    # A signal to all processes of a terminal or service is the parent's affair. A handler, not
    # SIG_IGN, which programs started by a worker would inherit.
    for number in stop_signals():
        signal.signal(number, lambda *_: None)
    orders = Orders()
    # A worker may complete its job in a thread of its own, and that thread outlive the run.
    saying = threading.Lock()

    def say(said: Any) -> None:
        with saying:
            connection.send(said)

    reading = (connection, orders)
    threading.Thread(target=_read, args=reading, name="oban-reader", daemon=True).start()
    while (order := orders.line.get()) is not None:
        match order:
            case (module, name):
                load(module, name)
                say(LOADED)
            case (number, module, name, payload, running):
                say(BEGUN)
                running.on_completed = partial(say, (COMPLETED, number))
                say(perform_here(module, name, payload, running))


class Orders:
    """What the parent wants done, one after the other.

    Attributes:
        line: `(module, worker)` to be imported, `(number, module, worker, payload, running)` to be
            run, None as the last.

    """

    def __init__(self) -> None:
        self.line: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
        self._number = 0
        self._running = Running()

    def hear(self, message: tuple[Any, ...]) -> None:
        """Note a message: something to do, or that the newest run shall end."""
        match message:
            case ("load", module, name):
                self.line.put((module, name))
            case ("run", number, *what):
                self._number, self._running = number, Running()
                self.line.put((number, *what, self._running))
            case ("cancel", number, reason):
                # It may have been sent as its run ended, and come when another one runs.
                if number == self._number:
                    self._running.cancel(reason)
            case ("stop",):
                self.line.put(None)


def _read(connection: "Connection[Any, Any]", orders: Orders) -> None:
    while True:
        try:
            message = connection.recv()
        except (EOFError, OSError):
            os._exit(ORPHANED)
        except BaseException:  # noqa: BLE001 (deaf, it would be waited for in vain)
            os._exit(GARBLED)
        orders.hear(message)
