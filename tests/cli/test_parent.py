"""The parent where the system or a worker does not do what it is asked."""

import socket
import subprocess
from typing import Any

import pytest

from oban_actors.cli.fleet import Fleet
from oban_actors.cli.link import WorkerLink
from oban_actors.cli.parent import Parent
from tests.support.waiting import wait_until


def test_a_system_that_starts_no_process_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After as many tries as a worker that dies has."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)

    assert Parent(["start"], Fleet(2, 1.0)).run() == 1
    assert "gave up: worker 0 could not be started: [Errno 11]" in caplog.text


def test_a_word_that_fails_is_not_the_last() -> None:
    """The worker hears the next one, and the end of its parent."""
    ours, theirs = socket.socketpair()
    heard: list[str] = []

    def hear(word: str) -> None:
        heard.append(word)
        if word == "drain":
            raise RuntimeError("a bug")

    WorkerLink(theirs.detach(), hear)
    ours.sendall(b"drain\nhurry\n")
    ours.close()

    wait_until(lambda: heard == ["drain", "hurry", "stop"])
