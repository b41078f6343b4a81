"""The parent of worker processes, where the system does not always start one."""

import errno
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from oban_actors.cli.fleet import Fleet
from oban_actors.cli.parent import Parent

WORKER = """
import socket, sys
[descriptor] = [each for each in sys.argv if each.startswith("--worker-link=")]
link = socket.socket(fileno=int(descriptor.partition("=")[2]))
link.sendall(b"ready\\n")
while (told := link.recv(100)) and b"stop" not in told:
    pass
"""


def test_a_process_that_can_not_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The others run on meanwhile; when the system can, it is started, and all stop in order."""
    tries: list[bool] = []
    popen = subprocess.Popen

    def starting(words: list[str], **options: Any) -> Any:
        tries.append(len(tries) not in (1, 2))
        if not tries[-1]:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        process = popen([sys.executable, "-c", WORKER, *words[3:]], **options)
        if tries.count(True) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return process

    monkeypatch.setattr(subprocess, "Popen", starting)
    assert Parent([], Fleet(2, 15.0)).run() == 0

    assert tries == [True, False, False, True]
    said = "could not be started: [Errno 11] Resource temporarily unavailable"
    assert sum(said in text for text in caplog.messages) == 2
