"""What a worker process does: runs one job after the other, until it is told to stop or alone."""

import os
import queue
import signal
import threading
from multiprocessing.connection import Connection
from typing import Any

from oban_actors.queues.remote import load, perform_here
from oban_actors.running import Running
from oban_actors.signals import stop_signals

ORPHANED = 3
"""Exit code of a process whose parent is gone."""

LOADED = "loaded"
"""What it says when it has imported a worker's module, or could not."""

BEGUN = "begun"
"""What it says before it runs a job: from then on the job has been tried."""

GARBLED = 4
"""Exit code of a process that can't read what it is sent."""


def child_main(connection: "Connection[Any, Any]") -> None:
    """Serve the parent at the other end of the connection.

    It sends `("load", module, worker)`, which is answered by `LOADED`, and
    `("run", module, worker, payload)`, and meanwhile perhaps `("cancel", reason)`; each run is
    answered by `BEGUN`, and by its outcome. `("stop",)` ends the process in order,
    and the end of the parent at once: what runs here is nobody's then, and will run somewhere else.
    """
    # A signal to all processes of a terminal or service is the parent's affair. A handler, not
    # SIG_IGN, which programs started by a worker would inherit.
    for number in stop_signals():
        signal.signal(number, lambda *_: None)
    runs: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(connection, runs), name="oban-reader", daemon=True).start()
    while (run := runs.get()) is not None:
        (module, name, *payload), running = run
        if not payload:
            load(module, name)
            connection.send(LOADED)
            continue
        connection.send(BEGUN)
        connection.send(perform_here(module, name, payload[0], running))


def _read(connection: "Connection[Any, Any]", runs: "queue.SimpleQueue[Any]") -> None:
    running = Running()
    while True:
        try:
            message = connection.recv()
        except (EOFError, OSError):
            os._exit(ORPHANED)
        except BaseException:  # noqa: BLE001 (deaf, it would be waited for in vain)
            os._exit(GARBLED)
        match message:
            case ("load" | "run", *what):
                running = Running()
                runs.put((what, running))
            case ("cancel", reason):
                running.cancel(reason)
            case ("stop",):
                runs.put(None)
