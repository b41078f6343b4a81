"""Run the bench modules, `bench_*.py` with `run(report)`, and print their figures."""

import argparse
import ast
import importlib
import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

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
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_setting,
        dest="settings",
        metavar="NAME.FIELD=VALUE",
        help="another size, such as flat.rows=10_000,1_000_000,10_000_000; may be repeated",
    )
    parser.add_argument("--note", default="", help="what a reader has to know: kept beside them")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    names = options.names or known
    try:
        sizes = _sizes(names, options.settings)
    except ValueError as error:
        parser.error(str(error))
    about = described(options.note)
    print(shown(about), flush=True)
    report = Report()
    for name in names:
        print(f"measuring {name} ...", flush=True)
        report.group = name
        _bench(name).run(report, *sizes.get(name, ()))
    print(report.table())
    figures = {"about": about, **report.plain()}
    text = json.dumps(figures, indent=2)
    if options.json is None:
        print(text)
    else:
        options.json.write_text(text + "\n")


Setting = tuple[str, str, Any]


def _bench(name: str) -> Any:
    return importlib.import_module(f"tests.bench.bench_{name}")


def _setting(text: str) -> Setting:
    place, _, value = text.partition("=")
    name, _, field = place.partition(".")
    return name, field, ast.literal_eval(value)


def _sizes(names: Sequence[str], settings: Sequence[Setting]) -> dict[str, tuple[Any]]:
    """Give the sizes of those benches for which something is set.

    Raises:
        ValueError: there is no such thing to set.

    """
    sizes: dict[str, tuple[Any]] = {}
    for name, field, value in settings:
        size = getattr(_bench(name), "Size", None) if name in names else None
        if size is None or field not in {each.name for each in fields(size)}:
            raise ValueError(f"--set {name}.{field}: there is no such size of what is measured")
        (before,) = sizes.get(name, (size(),))
        sizes[name] = (replace(before, **{field: value}),)
    return sizes


if __name__ == "__main__":
    main()
