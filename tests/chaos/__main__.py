"""`make chaos`: plays every fault on a server of its own, and prints what came of each."""

import argparse
import importlib
import sys
import traceback
from pathlib import Path

from tests.chaos import table
from tests.chaos.cases import CASES, Case, Row, place, play
from tests.chaos.scene import Scene
from tests.support.postgres import PostgresServer
from tests.support.scratch import Scratch

HERE = Path(__file__).parent


def load_cases() -> None:
    """Import all modules that have cases."""
    for file in sorted(HERE.glob("on_*.py")):
        importlib.import_module(f"tests.chaos.{file.stem}")


def play_alone(one: Case, *, long: bool) -> Row:
    """Play a case on a server that nobody else uses.

    Raises:
        AssertionError: what was waited for did not come.

    """
    with (
        Scratch() as scratch,
        PostgresServer(durable=True) as server,
        place(one, server, scratch.path) as database,
    ):
        return play(one, Scene(database, scratch.path, server, long=long))


def main(arguments: list[str] | None = None) -> int:
    """Play cases and print their table; 1 if something failed."""
    load_cases()
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=sorted(CASES), help="these cases")
    parser.add_argument(
        "--long", action="store_true", help="strike often, and measure throughput before and after"
    )
    parser.add_argument("--write", action="store_true", help="put the table into the docs")
    given = parser.parse_args(arguments)
    rows, failed = [], False
    for one in [CASES[name] for name in given.only or CASES]:
        _say(f"{one.name}: {one.fault}")
        if missing := one.missing():
            _say(f"  SKIPPED: {missing}")
            continue
        try:
            row = play_alone(one, long=given.long)
        except Exception:  # noqa: BLE001 (whatever it is, the others are played too)
            failed = True
            _say(traceback.format_exc())
            continue
        rows.append(row)
        failed = failed or bool(row.failures)
        _say(*(f"  FAILED: {failure}" for failure in row.failures))
        _say("  " + " | ".join(table.cells(row)[1:]))
    _say("", table.markdown(table.lines(rows).values()))
    if given.write and not failed:
        table.write(rows)
    return int(failed)


def _say(*lines: object) -> None:
    if lines:
        print(*lines, sep="\n", flush=True)  # noqa: T201 (it is a command)


if __name__ == "__main__":
    sys.exit(main())
