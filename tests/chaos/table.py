"""The table of what the cases came to, for the terminal and for docs/reliability.md."""

from collections.abc import Sequence
from pathlib import Path

from tests.chaos.cases import Row

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- chaos: begin -->", "<!-- chaos: end -->"
HEADS = ("fault", "what the nodes log", "jobs", "ran again", "flows again after", "jobs/s")


def cells(row: Row) -> tuple[str, ...]:
    """Give the cells of a row."""
    database = "SQLite: " if row.case.kind == "sqlite" else ""
    again = f"{row.again} of at most {row.bound}" if row.bound else str(row.again)
    rate = "" if row.before is None else f"{row.before:.0f}, then {row.after:.0f}"
    told = "; ".join(f"`{text}`" for text in row.told)
    return (database + row.case.fault, told, str(row.jobs), again, f"{row.standstill:.1f} s", rate)


def markdown(rows: Sequence[Row]) -> str:
    """Write the table."""
    lines = [HEADS, ("---",) * len(HEADS), *(cells(row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def write(rows: Sequence[Row], page: Path = PAGE) -> None:
    """Put the table where the page has its place."""
    text = page.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    assert found, f"no place for the table in {page}"
    page.write_text(f"{before}{BEGIN}\n\n{markdown(rows)}\n{END}{after}", "utf-8")
