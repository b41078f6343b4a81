"""Run the bench modules, `bench_*.py` with `run(report)`, and print their figures."""

import argparse
import importlib
import json
from pathlib import Path

from tests.bench.machine import described, shown
from tests.bench.report import Report


def main(arguments: list[str] | None = None) -> None:
    """Measure what the command line names, by default everything.

    Args:
        arguments: The command line, default: this process's.
    """
    known = sorted(
        path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py")
    )
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(known)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    parser.add_argument("--note", default="", help="what a reader has to know: kept beside them")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    about = described(options.note)
    print(shown(about), flush=True)
    report = Report()
    for name in options.names or known:
        print(f"measuring {name} ...", flush=True)
        report.group = name
        importlib.import_module(f"tests.bench.bench_{name}").run(report)
    print(report.table())
    figures = {"about": about, **report.plain()}
    text = json.dumps(figures, indent=2)
    if options.json is None:
        print(text)
    else:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
