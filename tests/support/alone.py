"""`make alone`: run each test in a process of its own, a fork of one in which none has run.

What one test leaves behind (a module's state, a registered worker, a warm cache) then helps no
other. Modules are imported before, and one server serves all: what else a session shares each
process makes for itself.
"""

import faulthandler
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from _pytest.runner import runtestprotocol

from tests.support.postgres import GIVEN, PostgresServer

GRACE = 30.0
"""Seconds that a test has to clean up in once its time is over."""

_SERVER = pytest.StashKey[PostgresServer]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Start the server, before any other process that runs tests is."""
    if not os.environ.get(GIVEN):
        server = config.stash[_SERVER] = PostgresServer()
        server.start()
        os.environ[GIVEN] = server.url()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop it, once all of those have ended."""
    if _SERVER in config.stash:
        config.stash[_SERVER].close()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool:
    """Run a test in a fork, its fixtures of the session too."""
    ihook = item.ihook
    ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _reports(item):
        ihook.pytest_runtest_logreport(report=report)
    ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _run(item: pytest.Item) -> bytes:
    # The thread that would do so is not there in a fork, which would wait for it.
    faulthandler.cancel_dump_traceback_later()
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    seconds, _ = signal.getitimer(signal.ITIMER_REAL)
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        # Of pytest-timeout a fork has the handler, and not the timer: so the test itself is told
        # that its time is over, and ends what it has begun.
        signal.setitimer(signal.ITIMER_REAL, seconds)
        _in_fork(item, writer)
    os.close(writer)
    if seconds:
        signal.setitimer(signal.ITIMER_REAL, seconds + GRACE)
    with _killed(pid), os.fdopen(reader, "rb") as said:
        return said.read()


@contextmanager
def _killed(pid: int) -> Iterator[None]:
    # It has ended, unless it did not heed that its time was over.
    try:
        yield
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        os.waitpid(pid, 0)


def _in_fork(item: pytest.Item, writer: int) -> None:
    code = 1
    try:
        # No test is next: the session's fixtures end as well.
        reports = runtestprotocol(item, log=False, nextitem=None)
        serialize = item.config.hook.pytest_report_to_serializable
        data = json.dumps([serialize(config=item.config, report=each) for each in reports])
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(data.encode())
        code = 0
    except BaseException:  # noqa: BLE001 (whatever it is, this is no second pytest)
        traceback.print_exc()
    finally:
        os._exit(code)


def _reports(item: pytest.Item) -> list[pytest.TestReport]:
    said = b""

    def run() -> None:
        nonlocal said
        said = _run(item)
        assert said, "its process ended without a report"

    # Where it does not heed that its time is over, this process is told too.
    waited = pytest.CallInfo.from_call(run, "call", (KeyboardInterrupt, SystemExit))
    if waited.excinfo is not None:
        return [pytest.TestReport.from_item_and_call(item, waited)]
    restore = item.config.hook.pytest_report_from_serializable
    reports = [restore(config=item.config, data=each) for each in json.loads(said)]
    for report in reports:
        if isinstance(report.longrepr, list):  # a skip's, which JSON made of a tuple
            report.longrepr = tuple(report.longrepr)
    return reports
