"""Ask whether a vulnerability is known of what the lock files name: `make audit`.

A vulnerability that is found fails. An index or service that doesn't answer, or not in time, is
said and fails nothing: else nobody could build while it is away.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oban_actors.actors.clock import real_monotonic

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".audit"
LOCKS = ("dev.txt", "embedded.txt")

PATIENCE = 30.0
"""Seconds that all of it may take."""


@dataclass(frozen=True)
class Verdict:
    """What was said of the packages.

    Attributes:
        asked: how many the service knows.
        unknown: names of those that it doesn't, or said nothing of.
        found: a line for each vulnerability.

    """

    asked: int
    unknown: tuple[str, ...]
    found: tuple[str, ...]

    @property
    def text(self) -> str:
        """What is said of it."""
        if self.found:
            return "\n".join(["Known vulnerabilities:", *(f"  {line}" for line in self.found)])
        if not self.asked:
            return "NOT audited: the service knew none of the packages."
        rest = f"; of {len(self.unknown)} nothing was said" if self.unknown else ""
        return f"Audited {self.asked} packages: no vulnerability is known{rest}."


class NotAuditedError(Exception):
    """Nobody answered, or not in time."""


def judge(reports: Sequence[Any]) -> Verdict:
    """Read what pip-audit reports as JSON.

    Raises:
        NotAuditedError: it is no such report.

    """
    try:
        named = {each["name"]: each for report in reports for each in report["dependencies"]}
        asked = [each for each in named.values() if "vulns" in each]
        lines = [_line(each, one) for each in asked for one in each["vulns"]]
    except (KeyError, TypeError) as error:
        raise NotAuditedError("the report can't be read") from error
    unknown = tuple(sorted(name for name, each in named.items() if "vulns" not in each))
    return Verdict(len(asked), unknown, tuple(lines))


def _line(package: Any, one: Any) -> str:
    mended = ", ".join(one.get("fix_versions", ())) or "no version yet"
    return f"{package['name']} {package['version']}: {one['id']}, mended in {mended}"


def audit(until: float) -> Verdict:
    """Install pip-audit beside, as locked, and let it ask.

    Raises:
        NotAuditedError: that can't be done until then.

    """
    python, ready = HOME / "bin" / "python", HOME / "ready"
    lock = ROOT / "requirements" / "audit.txt"
    if not ready.exists() or ready.read_text() != lock.read_text():
        # Our own pip does it: to install another one there would take half the time.
        run(until, sys.executable, "-m", "venv", "--clear", "--without-pip", HOME)
        pip = ("-m", "pip", "--python", python, "install", "--quiet", "--no-compile")
        words = ("--disable-pip-version-check", "--require-hashes", "-r", lock)
        run(until, sys.executable, *pip, *words)
        ready.write_text(lock.read_text())
    reports = []
    with tempfile.TemporaryDirectory() as folder:
        for name in LOCKS:
            out = Path(folder) / name
            given = ("--disable-pip", "--require-hashes", "--format", "json", "--output", out)
            locked = ROOT / "requirements" / name
            run(until, HOME / "bin" / "pip-audit", "--requirement", locked, *given, ends=(0, 1))
            reports.append(read(out))
    return judge(reports)


def read(report: Path) -> Any:
    """Read a report.

    Raises:
        NotAuditedError: there is none.

    """
    try:
        return json.loads(report.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise NotAuditedError("there is no report") from error


def run(until: float, *words: object, ends: Sequence[int] = (0,)) -> None:
    """Run a program, silently.

    Raises:
        NotAuditedError: it takes too long, can't be started, or ends otherwise.

    """
    name = next((str(word) for word in words if word in ("pip", "venv")), Path(str(words[0])).name)
    try:
        process = subprocess.Popen(
            [str(word) for word in words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise NotAuditedError(f"{name} can't be run: {error.strerror}") from error
    try:
        code = process.wait(max(until - real_monotonic(), 0.1))
    except subprocess.TimeoutExpired as error:
        # With all that it has started.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise NotAuditedError(f"{name} took too long") from error
    if code not in ends:
        raise NotAuditedError(f"{name} ended with exit code {code}")


def main(patience: float = PATIENCE) -> int:
    """Audit; give the exit code."""
    try:
        verdict = audit(real_monotonic() + patience)
    except NotAuditedError as error:
        sys.stdout.write(f"NOT audited: {error}.\n")
        return 0
    sys.stdout.write(f"{verdict.text}\n")
    return 1 if verdict.found else 0


if __name__ == "__main__":
    sys.exit(main())
