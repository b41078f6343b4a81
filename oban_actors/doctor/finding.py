"""Finding: one fault of a database, and what mends it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

Severity = Literal["error", "warning", "notice"]
"""`error`: jobs are lost, stuck or refused; `warning`: it gets worse; `notice`: to be known."""

SEVERITIES: tuple[Severity, ...] = get_args(Severity)


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault.

    Attributes:
        severity: how bad it is.
        code: which kind of fault, a word for programs.
        what: the fault in words, with the names and figures that belong to it.
        fix: the SQL that mends it, or what to do, where SQL can't.

    """

    severity: Severity
    code: str
    what: str
    fix: str

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain values, fit for JSON."""
        names = ("severity", "code", "what", "fix")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is still taken as healthy.

    Attributes:
        transaction: seconds that a transaction of anybody's may be open, default 300.
        clock: seconds that this machine's clock and the database's may differ, default 2.
        beat: seconds since a producer's last beat after which it counts as gone, default 60.
        waiting: seconds that a job may wait in a queue that nobody runs, default 60.
        listen: seconds that a notification may take, default 5.
        dead_rows: dead rows that a table may have, if they are also fewer than the living,
            default 50,000.
        bloat: bytes that a table or an index may have, however few rows, default 128 MiB.

    """

    transaction: float = 300.0
    clock: float = 2.0
    beat: float = 60.0
    waiting: float = 60.0
    listen: float = 5.0
    dead_rows: int = 50_000
    bloat: int = 128 * 1024 * 1024


def render(findings: Sequence[Finding]) -> str:
    """Write findings as text, the worst first."""
    if not findings:
        return "No faults were found."
    blocks = []
    for one in findings:
        lines = one.fix.splitlines()
        fix = "\n".join([f"  fix: {lines[0]}", *(f"       {line}" for line in lines[1:])])
        blocks.append(f"{one.severity.upper()} {one.code}: {one.what}\n{fix}")
    counts = [(sum(1 for one in findings if one.severity == each), each) for each in SEVERITIES]
    total = ", ".join(f"{count} {each}{'s' * (count != 1)}" for count, each in counts if count)
    return "\n\n".join([*blocks, total])
