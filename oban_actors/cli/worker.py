"""A worker process under a parent: what it is told, and how it shows that it lives."""

import logging
import signal
import threading

from oban_actors.actors import NoProcess, Reason
from oban_actors.actors.clock import real_monotonic
from oban_actors.cli.fleet import BEAT
from oban_actors.cli.link import WorkerLink
from oban_actors.health.judging import alive
from oban_actors.messages import StopQueue
from oban_actors.oban import Oban
from oban_actors.options import HealthOptions
from oban_actors.signals import WAKE_UP, StopFlag, stop_signals

logger = logging.getLogger("oban_actors")


def work(oban: Oban, descriptor: int) -> Reason:
    """Run the tree until the parent says so, a signal comes or the parent is gone.

    Args:
        oban: the instance.
        descriptor: of the inherited end of the link to the parent.

    Returns:
        why the tree ended.

    """
    over, up = StopFlag(), threading.Event()
    # A service manager may signal the workers besides their parent: that is no reason to hurry.
    for number in stop_signals():
        signal.signal(number, lambda *_: over.set())

    def heard(word: str) -> None:
        match word:
            case "drain" if up.is_set():
                for queue in oban.config.queues:
                    oban.tell("queues", StopQueue(queue))
            case "hurry":
                oban.hurry()
            case _:
                over.set()

    link = WorkerLink(descriptor, heard)
    if not over.is_set():
        oban.start(on_exit=lambda _: over.set())
        up.set()
        link.ready()
        pulse = Pulse(oban, link)
        # A signal that came while the process was stopped may wake another thread than this one.
        while not over.wait(WAKE_UP):
            pulse.beat()
    link.ending()
    return oban.stop() or Reason("normal")


class Pulse:
    """Tells the parent that this process lives, as long as its tree does, by the rules of `/live`.

    Args:
        oban: the instance.
        link: to the parent.

    """

    def __init__(self, oban: Oban, link: WorkerLink) -> None:
        self._oban = oban
        self._link = link
        self._due = 0.0
        self._well = True
        health, least = oban.config.health, 2 * oban.config.statement_timeout
        self._patience = (
            max(HealthOptions(port=0).patience, least) if health is None else health.patience
        )

    def beat(self) -> None:
        """Tell it, if it is time to."""
        now = real_monotonic()
        if now < self._due:
            return
        self._due = now + BEAT
        try:
            report = alive(self._oban.tree(), self._patience)
        except NoProcess:
            return
        if report.ok:
            self._link.beat()
        elif self._well:
            logger.error("the tree hangs, which the parent may end: %s", report.body["late"])
        self._well = report.ok
