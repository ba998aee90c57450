"""A line chart on log axes as an SVG file that is readable on a white and on a dark page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 860, 500
_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 236, 44, 62

# Told apart by most eyes, and with contrast on both backgrounds.
_COLORS = ("#0a84d6", "#d55e00", "#12946c", "#b5489a", "#a07800", "#6b7280")

_STYLE = """
.page{fill:#ffffff}.ink{fill:#1f2328}.grid{stroke:#1f2328;stroke-opacity:.14;fill:none}
.axis{stroke:#1f2328;stroke-opacity:.6;fill:none}
.band{fill:#1f2328;fill-opacity:.12;stroke:#1f2328;stroke-opacity:.3}
text{font:13px system-ui,sans-serif}
@media (prefers-color-scheme:dark){.page{fill:#0d1117}.ink{fill:#e6edf3}
.grid,.axis{stroke:#e6edf3}.band{fill:#e6edf3;fill-opacity:.16;stroke:#e6edf3}}
"""


@dataclass(frozen=True)
class Line:
    """One curve. Lines with the same color belong together; the second one is dashed."""

    title: str
    color: int
    dashed: bool
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """All positive: both axes are logarithmic."""

    title: str
    y_title: str
    lines: Sequence[Line]
    format_x: Callable[[float], str]
    band_title: str = ""
    band: Sequence[tuple[float, float, float]] = field(default_factory=tuple)
    """(x, low, high)"""


class _Scale:
    """Maps values to pixels, logarithmically."""

    def __init__(self, least: float, most: float, start: float, end: float) -> None:
        self._least = math.log(least)
        self._span = (math.log(most) - self._least) or 1.0
        self._start, self._length = start, end - start

    def __call__(self, value: float) -> float:
        return self._start + (math.log(value) - self._least) / self._span * self._length


def write(chart: Chart) -> str:
    """The file's text. A chart without points says so."""
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
             f'width="{WIDTH}" height="{HEIGHT}" role="img">',
             f"<title>{escape(chart.title)}</title>", f"<style>{escape(_STYLE)}</style>",
             f'<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>',
             _text(_LEFT, 26, chart.title, weight="bold")]
    points = [point for line in chart.lines for point in line.points]
    if points:
        parts += _plot(chart, points)
    else:
        parts.append(_text(_LEFT, 80, "nothing was measured"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _plot(chart: Chart, points: Sequence[tuple[float, float]]) -> list[str]:
    xs = sorted({x for x, _ in points})
    ys = [y for _, y in points] + [y for _, low, high in chart.band for y in (low, high)]
    decades = (math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys))))
    if decades[0] == decades[1]:
        decades = (decades[0], decades[0] + 1)
    x_at = _Scale(xs[0], xs[-1], _LEFT, WIDTH - _RIGHT)
    y_at = _Scale(10.0 ** decades[0], 10.0 ** decades[1], HEIGHT - _BOTTOM, _TOP)
    parts = _grid(chart, xs, decades, x_at, y_at)
    if chart.band:
        upper = [(x, high) for x, _, high in chart.band]
        lower = [(x, low) for x, low, _ in reversed(chart.band)]
        parts.append(f'<polygon class="band" points="{_path(upper + lower, x_at, y_at)}"/>')
    for line in chart.lines:
        parts += _curve(line, x_at, y_at)
    return parts + _legend(chart)


def _grid(chart: Chart, xs: Sequence[float], decades: tuple[int, int], x_at: _Scale,
          y_at: _Scale) -> list[str]:
    parts = []
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    for decade in range(decades[0], decades[1] + 1):
        y = y_at(10.0 ** decade)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"{10.0 ** decade:g}", anchor="end"))
    step = math.ceil(len(xs) / 9)
    for x in xs[::step]:
        at = x_at(x)
        parts.append(f'<path class="grid" d="M{at:.1f} {_TOP}V{bottom}"/>')
        parts.append(_text(at, bottom + 20, chart.format_x(x), anchor="middle"))
    parts.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>')
    parts.append(_text((_LEFT + right) / 2, HEIGHT - 14, "size", anchor="middle"))
    parts.append(f'<text class="ink" text-anchor="middle" '
                 f'transform="translate(18 {(_TOP + bottom) / 2:.0f}) rotate(-90)">'
                 f"{escape(chart.y_title)}</text>")
    return parts


def _curve(line: Line, x_at: _Scale, y_at: _Scale) -> list[str]:
    color = _COLORS[line.color % len(_COLORS)]
    dash = ' stroke-dasharray="6 4"' if line.dashed else ""
    parts = [f'<polyline fill="none" stroke="{color}" stroke-width="2"{dash} '
             f'points="{_path(line.points, x_at, y_at)}"/>']
    parts += [f'<circle cx="{x_at(x):.1f}" cy="{y_at(y):.1f}" r="2.5" fill="{color}"/>'
              for x, y in line.points]
    return parts


def _legend(chart: Chart) -> list[str]:
    parts = []
    left, y = WIDTH - _RIGHT + 18, _TOP + 10
    for line in chart.lines:
        color = _COLORS[line.color % len(_COLORS)]
        dash = ' stroke-dasharray="6 4"' if line.dashed else ""
        parts.append(f'<path stroke="{color}" stroke-width="2"{dash} d="M{left} {y}h26"/>')
        parts.append(_text(left + 34, y + 4, line.title))
        y += 22
    if chart.band:
        parts.append(f'<rect class="band" x="{left}" y="{y - 7}" width="26" height="14"/>')
        parts.append(_text(left + 34, y + 4, chart.band_title))
    return parts


def _path(points: Sequence[tuple[float, float]], x_at: _Scale, y_at: _Scale) -> str:
    return " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in points)


def _text(x: float, y: float, text: str, anchor: str = "start", weight: str = "normal") -> str:
    return (f'<text class="ink" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
            f'font-weight="{weight}">{escape(text)}</text>')
