"""The table of what the cases came to, for the terminal and for docs/reliability.md."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.chaos.cases import Row

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- chaos: begin -->", "<!-- chaos: end -->"
HEADS = ("fault", "what the nodes log", "jobs", "ran again", "flows again after", "jobs/s")


def cells(row: Row) -> tuple[str, ...]:
    """Give the cells of a row."""
    database = "SQLite: " if row.case.kind == "sqlite" else ""
    again = f"{row.again} of at most {row.bound}" if row.bound else str(row.again)
    rate = "" if row.before is None else f"{row.before:.1f}, then {row.after:.1f}"
    told = "; ".join(f"`{text}`" for text in row.told)
    return (database + row.case.fault, told, str(row.jobs), again, f"{row.standstill:.1f} s", rate)


def lines(rows: Sequence[Row]) -> dict[str, str]:
    """Write each row, by its fault."""
    return {cells(row)[0]: _line(cells(row)) for row in rows}


def markdown(rows: Iterable[str]) -> str:
    """Write the table of these lines."""
    return "\n".join([_line(HEADS), _line(("---",) * len(HEADS)), *rows]) + "\n"


def write(rows: Sequence[Row], page: Path = PAGE) -> None:
    """Put rows into the page's table, in place of those of the same faults."""
    text = page.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    old, found, after = rest.partition(END)
    assert found, f"no place for the table in {page}"
    kept = {line.split(" | ")[0].removeprefix("| "): line for line in old.splitlines()[3:] if line}
    page.write_text(
        f"{before}{BEGIN}\n{markdown((kept | lines(rows)).values())}{END}{after}", "utf-8"
    )


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
