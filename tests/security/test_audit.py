"""What `make audit` makes of what it is told, also where nobody tells it anything."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from oban_actors.actors.clock import real_monotonic
from tests.support import audit

FINE: dict[str, Any] = {"name": "one", "version": "1.0", "vulns": []}
BAD: dict[str, Any] = {
    "name": "two",
    "version": "2.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}, {"id": "GHSA-2", "fix_versions": []}],
}
SKIPPED: dict[str, Any] = {"name": "three", "skip_reason": "not found"}


def report(*packages: dict[str, Any]) -> dict[str, Any]:
    """Make what pip-audit writes."""
    return {"dependencies": list(packages), "fixes": []}


def test_what_was_found() -> None:
    """Each vulnerability is named with the version that mends it."""
    verdict = audit.judge([report(FINE, BAD), report(SKIPPED, FINE)])

    assert (verdict.asked, verdict.unknown) == (2, ("three",))
    assert verdict.found == (
        "two 2.0: PYSEC-1, mended in 2.1",
        "two 2.0: GHSA-2, mended in no version yet",
    )
    assert "PYSEC-1" in verdict.text


def test_what_was_not_found() -> None:
    """Who asked, and of what nothing was said, can be told."""
    assert audit.judge([report(FINE, SKIPPED)]).text == (
        "Audited 1 packages: no vulnerability is known; of 1 nothing was said."
    )
    assert audit.judge([report(SKIPPED)]).text.startswith("NOT audited")
    with pytest.raises(audit.NotAuditedError):
        audit.judge([{"error": "no"}])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place where pip-audit is installed, as a program of this test's own."""
    monkeypatch.setattr(audit, "HOME", tmp_path)
    (tmp_path / "bin").mkdir()
    lock = audit.ROOT / "requirements" / "audit.txt"
    (tmp_path / "ready").write_text(lock.read_text())
    return tmp_path


def program(home: Path, script: str) -> None:
    """Put a script in pip-audit's place."""
    path = home / "bin" / "pip-audit"
    path.write_text(f"#!/bin/sh\n{script}\n")
    os.chmod(path, 0o755)  # noqa: PTH101, S103 (it is to be run)


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [([FINE], 0, "Audited 1 packages"), ([FINE, BAD], 1, "PYSEC-1"), ([SKIPPED], 0, "NOT audited")],
    ids=["fine", "bad", "unknown"],
)
def test_the_step(
    home: Path, capsys: pytest.CaptureFixture[str], packages: Any, code: int, said: str
) -> None:
    """Only a vulnerability that was found fails."""
    (home / "report").write_text(json.dumps(report(*packages)))
    # Its last argument is where the report goes; it ends with 1 where it found something.
    program(home, f'for last; do :; done; cp "{home}/report" "$last"; exit {code}')

    assert audit.main() == code
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exit 1", "there is no report"),
        ("exit 7", "ended with exit code 7"),
        ("exec sleep 600", "took too long"),
    ],
    ids=["silent", "broken", "hanging"],
)
def test_nobody_answers(
    home: Path, capsys: pytest.CaptureFixture[str], script: str, why: str
) -> None:
    """It is said, in bounded time, and fails nothing."""
    program(home, script)
    begun = real_monotonic()

    assert audit.main(patience=2.0) == 0
    said = capsys.readouterr().out
    assert said.startswith("NOT audited: ")
    assert why in said
    assert real_monotonic() - begun < 60


def test_nothing_can_be_installed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an index, or without time for it, likewise."""
    monkeypatch.setattr(audit, "HOME", tmp_path / "none")

    assert audit.main(patience=0.0) == 0
    assert "took too long" in capsys.readouterr().out
