"""Bring figures into the docs: `python -m tests.bench.pages figures.json ...`.

A table stands between `<!-- figures: NAME -->` and `<!-- end -->`, where NAME is that of the bench,
and its plot, `NAME.svg`, is written beside the page.
"""

import argparse
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.bench.machine import shown
from tests.bench.plots import Chart, Points, page

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("performance.md", "scaling.md")
BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
LAST = re.compile(r"^(.*), (p50|p99|max|slowest|fastest|ratio)$")
PART = re.compile(r"^([^:]*): (.*)$")
FLAT = re.compile(
    r"^(?P<what>.+), (?P<rows>[\d,]+) (?P<full>.+), (?P<when>before autovacuum|after)$"
)

Figures = Sequence[dict[str, Any]]


def main(arguments: list[str] | None = None) -> None:
    """Write the tables and plots of some files of figures, a later one before an earlier one."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pages")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="of `--json`")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where the pages are")
    options = parser.parse_args(arguments)
    for file in options.files:
        given = json.loads(file.read_text("utf-8"))
        groups = {figure["group"] for figure in given["figures"]}
        plots = _plots(given)
        tables = {group: _block(group, given, plots) for group in groups}
        for path in (options.docs / name for name in PAGES):
            if path.exists():
                path.write_text(_filled(path.read_text("utf-8"), tables), "utf-8")
        for name, charts in plots.items():
            (options.docs / f"{name}.svg").write_text(page(charts), "utf-8")


def _filled(text: str, tables: dict[str, str]) -> str:
    def fill(found: re.Match[str]) -> str:
        return f"{found[1]}{tables[found[2]]}{found[3]}" if found[2] in tables else found[0]

    return BLOCK.sub(fill, text)


def _block(group: str, given: dict[str, Any], plots: dict[str, list[Chart]]) -> str:
    picture = f"\n![{plots[group][0].title}]({group}.svg)\n" if group in plots else ""
    return f"{_table(group, given)}{picture}"


# Tables


def _table(group: str, given: dict[str, Any]) -> str:
    figures = [figure for figure in given["figures"] if figure["group"] == group]
    rows = _flat(figures) if group == "flat" else _plain(figures)
    return f"{_markdown(rows)}\n\n{shown(given['about'])}\n"


def _plain(figures: Figures) -> list[tuple[str, ...]]:
    """One row for each thing that was measured, with its spread, its ratio or its parts."""
    rows: dict[str, list[tuple[str, str, str]]] = {}
    goals: dict[str, list[str]] = {}
    for figure in figures:
        name, kind = _parted(figure["name"])
        unit = "times" if kind == "ratio" else figure["unit"]
        rows.setdefault(name, []).append((kind, number(figure["value"]), unit))
        if figure["goal"]:
            goals.setdefault(name, []).append(f"{kind} {figure['goal']}".strip())
    return [
        ("what", "figure", "goal"),
        *((name, _cell(found), "; ".join(goals.get(name, []))) for name, found in rows.items()),
    ]


def _parted(name: str) -> tuple[str, str]:
    if found := PART.match(name) or LAST.match(name):
        return found[1], found[2]
    return name, ""


def _cell(found: list[tuple[str, str, str]]) -> str:
    if len({unit for _, _, unit in found}) == 1:
        values = "; ".join(f"{kind} {value}".strip() for kind, value, _ in found)
        return f"{values} {found[0][2]}"
    return "; ".join(f"{kind} {value} {unit}".strip() for kind, value, unit in found)


def _flat(figures: Figures) -> list[tuple[str, ...]]:
    """A row for each statement and a column for each condition: ms, from few rows to many."""
    costs: dict[str, dict[str, list[float]]] = {}
    columns: list[str] = []
    sizes: list[str] = []
    for figure in figures:
        if found := FLAT.match(figure["name"]):
            column = f"{found['full']}, {found['when'].removesuffix(' autovacuum')}"
            columns += [] if column in columns else [column]
            sizes += [] if found["rows"] in sizes else [found["rows"]]
            costs.setdefault(found["what"], {}).setdefault(column, []).append(figure["value"])
    rows = [(f"ms, {' / '.join(sizes)} rows", *columns)]
    for what, by_column in costs.items():
        cells = [" / ".join(map(number, by_column.get(column, []))) for column in columns]
        rows.append((what, *cells))
    return rows


def _markdown(rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def number(value: float) -> str:
    """Write a figure with three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


# Plots


def _plots(given: dict[str, Any]) -> dict[str, list[Chart]]:
    series: list[dict[str, Any]] = given["series"]
    plots: dict[str, list[Chart]] = {}
    if lines := _lines(series, "lateness", str):
        plots["lateness"] = [
            Chart("How late scheduled jobs start", lines, "percentile", "ms", log_y=True)
        ]
    if lines := _by_limit(given["figures"]):
        plots["queues"] = [Chart("Drain", lines, "limit", "jobs/s", log_x=True)]
    if lines := _lines(series, "growth", lambda name: f"{name} by so many nodes"):
        plots["growth"] = [Chart("Growth", lines, "nodes", "jobs/s")]
    flat = [
        Chart(f"Rows that are {full}", lines, "rows", "ms", log_x=True)
        for full in ("finished", "scheduled", "in backlog", "just drained")
        if (lines := _lines(series, "flat", _after(full)))
    ]
    return plots | ({"flat": flat} if flat else {})


def _after(full: str) -> Callable[[str], str]:
    ending = f", {full}, before autovacuum"
    return lambda name: name.removesuffix(ending) if name.endswith(ending) else ""


def _lines(
    series: list[dict[str, Any]], group: str, label: Callable[[str], str]
) -> dict[str, Points]:
    return {
        label(each["name"]): each["points"]
        for each in series
        if each["group"] == group and label(each["name"])
    }


def _by_limit(figures: Figures) -> dict[str, Points]:
    lines: dict[str, list[tuple[float, float]]] = {}
    for figure in figures:
        found = re.match(r"^(\w+, .+), (?:limit|batch) (\d+)$", figure["name"])
        if found and figure["group"] == "queues":
            lines.setdefault(found[1], []).append((float(found[2]), figure["value"]))
    return {name: sorted(points) for name, points in lines.items()}


if __name__ == "__main__":
    main()
