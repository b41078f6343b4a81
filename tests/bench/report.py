"""What a bench module reports to."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        group: The module that measured it.
        name: What was measured.
        value: How much.
        unit: Of what.
        goal: What it should be, such as "< 2", or nothing.
    """

    group: str
    name: str
    value: float
    unit: str
    goal: str = ""


@dataclass(frozen=True)
class Series:
    """What a plot is made of.

    Attributes:
        group: The module that measured it.
        name: What was measured.
        points: Pairs of x and y.
        unit: Of y, and by what.
    """

    group: str
    name: str
    points: tuple[tuple[float, float], ...]
    unit: str


QUANTILES = 200


@dataclass
class Report:
    """Collects figures, and series of them for plots."""

    group: str = ""
    figures: list[Figure] = field(default_factory=list)
    series: list[Series] = field(default_factory=list)

    def add(self, name: str, value: float, unit: str, goal: str = "") -> None:
        """Report one figure, such as `add("tell", 210_000, "1/s", goal="> 150000")`."""
        self.figures.append(Figure(self.group, name, float(value), unit, goal))

    def add_samples(
        self,
        name: str,
        samples: Sequence[float],
        unit: str,
        goal: str = "",
        median: str = "",
    ) -> None:
        """Report median, with its own goal, 99th percentile (`goal` is for it), and maximum."""
        ranked = sorted(samples)
        self.add(f"{name}, p50", statistics.median(ranked), unit, median)
        self.add(f"{name}, p99", ranked[min(len(ranked) * 99 // 100, len(ranked) - 1)], unit, goal)
        self.add(f"{name}, max", ranked[-1], unit)
        last = len(ranked) - 1
        steps = min(QUANTILES, max(last, 1))
        points = [(100 * at / steps, ranked[last * at // steps]) for at in range(steps + 1)]
        self.add_series(name, points, f"{unit} by percentile")

    def add_series(self, name: str, points: Sequence[tuple[float, float]], unit: str) -> None:
        """Report what a plot is made of, such as `add_series("drain", [(1, 500)], "jobs/s")`."""
        self.series.append(Series(self.group, name, tuple(points), unit))

    def table(self) -> str:
        """The figures as aligned lines."""
        rows = [("what", "figure", "unit", "goal")] + [
            (f"{figure.group}: {figure.name}", f"{figure.value:,.6g}", figure.unit, figure.goal)
            for figure in self.figures
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            f"{what:<{widths[0]}}  {value:>{widths[1]}}  {unit:<{widths[2]}}  {goal}".rstrip()
            for what, value, unit, goal in rows
        )

    def plain(self) -> dict[str, list[dict[str, object]]]:
        """All of it as JSON values."""
        return {
            "figures": [asdict(each) for each in self.figures],
            "series": [asdict(each) for each in self.series],
        }
