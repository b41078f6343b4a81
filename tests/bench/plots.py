"""Line charts as SVG, without a library: a few lines, labelled, readable in light and dark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 380, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 34, 40
LINE = 14
COLUMNS = 2
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#777777")

XMLNS = "http://www.w3.org/2000/svg"
STYLE = """
text { font: 11px system-ui, 'DejaVu Sans', sans-serif; fill: #333 }
.title { font-size: 13px; font-weight: 600 }
.axis { stroke: #999 } .grid { stroke: #ddd; stroke-width: 0.5 }
@media (prefers-color-scheme: dark) { text { fill: #ccc } .grid { stroke: #444 } }
"""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        title: above it.
        lines: points by label.
        across: what x is, and `up` what y is.
        log_x: whether x goes by its logarithm, and `log_y` whether y does.

    """

    title: str
    lines: dict[str, Points]
    across: str
    up: str
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float
    log: bool

    def at(self, value: float) -> float:
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / ((high - low) or 1.0) * (self.end - self.start)

    def ticks(self) -> list[float]:
        if not self.log:
            return _steps(self.low, self.high)
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        each = [mark * 10.0**power for power in range(first, last + 1) for mark in (1, 2, 5)]
        inside = [tick for tick in each if self.low <= tick <= self.high]
        whole = [tick for tick in inside if f"{tick:e}".startswith("1")]
        return whole if len(whole) > 2 else inside


def page(charts: Sequence[Chart]) -> str:
    """Draw charts, two in a row."""
    high = HEIGHT + LINE * (max(len(chart.lines) for chart in charts) + 1)
    columns = min(COLUMNS, len(charts))
    rows = math.ceil(len(charts) / columns)
    drawn = "\n".join(
        f'<g transform="translate({WIDTH * (at % columns)} {high * (at // columns)})">\n'
        f"{_draw(chart)}\n</g>"
        for at, chart in enumerate(charts)
    )
    head = f'xmlns="{XMLNS}" width="{WIDTH * columns}" height="{high * rows}"'
    return f"<svg {head}>\n<style>{STYLE}</style>\n{drawn}\n</svg>\n"


def _draw(chart: Chart) -> str:
    xs = [x for line in chart.lines.values() for x, _ in line]
    ys = [y for line in chart.lines.values() for _, y in line]
    across = _Scale(min(xs), max(xs), LEFT, WIDTH - RIGHT, chart.log_x)
    low = min(ys) if chart.log_y else 0.0
    up = _Scale(low, max(ys) * 1.05, HEIGHT - BOTTOM, TOP, chart.log_y)
    parts = [_text(chart.title, LEFT, 16, "start", "title"), _text(chart.up, LEFT, 29)]
    parts += [_axis(across, up), _text(chart.across, WIDTH - RIGHT, HEIGHT - 8, "end")]
    for place, (label, line) in enumerate(chart.lines.items()):
        color = COLORS[place % len(COLORS)]
        path = " ".join(f"{across.at(x):.1f},{up.at(y):.1f}" for x, y in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.8"/>')
        below = HEIGHT + LINE * place
        parts.append(f'<rect x="{LEFT}" y="{below}" width="10" height="3" fill="{color}"/>')
        parts.append(_text(label, LEFT + 16, below + 5))
    return "\n".join(parts)


def _axis(across: _Scale, up: _Scale) -> str:
    bottom, left, right = HEIGHT - BOTTOM, LEFT, WIDTH - RIGHT
    parts = [f'<path class="axis" fill="none" d="M{left},{TOP}V{bottom}H{right}"/>']
    for tick in up.ticks():
        y = up.at(tick)
        parts.append(f'<path class="grid" d="M{left},{y:.1f}H{right}"/>')
        parts.append(_text(_number(tick), left - 5, y + 4, "end"))
    below = [
        _text(_number(tick), across.at(tick), bottom + 14, "middle") for tick in across.ticks()
    ]
    return "\n".join([*parts, *below])


def _text(text: str, x: float, y: float, anchor: str = "start", kind: str = "") -> str:
    kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(text)}</text>'


def _steps(low: float, high: float) -> list[float]:
    rough = (high - low or 1.0) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each * power for each in (1, 2, 5, 10) if each * power >= rough)
    first = math.ceil(low / step)
    return [step * n for n in range(first, math.floor(high / step) + 1)]


def _number(value: float) -> str:
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:g}"
