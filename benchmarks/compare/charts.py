"""The two charts of a case: time and bus bandwidth over size."""

from __future__ import annotations

from collections.abc import Callable

from . import limits, svg
from .cases import Case, bus_factor
from .results import Results
from .sizes import format_size

_COLORS = {"libcomm": 0, "openmpi": 1, "mpich": 2, "gloo": 3}


def write(results: Results, case: Case) -> dict[str, str]:
    """SVG texts by file name."""
    band = limits.band(results, case)
    time = _chart(results, case, "time (us)", band, lambda _, value: value)
    bandwidth = [(size, _busbw(results, case, size, most), _busbw(results, case, size, least))
                 for size, least, most in band]
    busbw = _chart(results, case, "busbw (GB/s)", bandwidth,
                   lambda size, value: _busbw(results, case, size, value))
    return {f"{case.name}-time.svg": svg.write(time), f"{case.name}-busbw.svg": svg.write(busbw)}


def _busbw(results: Results, case: Case, size: int, microseconds: float) -> float:
    """GB/s."""
    moved = results.bytes(case, size) * bus_factor(case.collective, case.ranks)
    return moved / microseconds / 1e3


def _chart(results: Results, case: Case, y_title: str, band: limits.Band,
           convert: Callable[[int, float], float]) -> svg.Chart:
    lines = []
    for one in results.contenders[case].values():
        points = []
        for size in results.sizes(case):
            time = results.time(case, one.key, size)
            if time is not None:
                points.append((float(size), convert(size, time)))
        if points:
            dashed = one.key.endswith(("-best", "-mem"))
            color = 4 if one.key == "libcomm-bf16" else _COLORS[one.library]
            lines.append(svg.Line(one.title, color, dashed, points))
    return svg.Chart(f"{case}: {y_title}", y_title, lines, lambda size: format_size(int(size)),
                     "the machine's limits", [(float(size), low, high) for size, low, high in band])
