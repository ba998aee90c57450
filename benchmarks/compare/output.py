"""What drivers print: lines that start with @ and a kind (benchmarks/peers/loop.h, limits.cc).

Anything else, and a line that was cut short, is somebody's noise and left alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """One measured size."""

    collective: str
    type: str
    size: int
    """Bytes that were asked for; the key of the row."""
    bytes: int
    """Of the larger buffer of the call: a block has at least one element."""
    iterations: int
    microseconds: float
    wrong: int
    """Wrong elements."""


@dataclass
class Output:
    """All that a driver said."""

    library: str = ""
    rows: list[Row] = field(default_factory=list)
    skips: dict[str, str] = field(default_factory=dict)
    """Why, by collective."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the table should know."""
    limits: dict[tuple[str, int], float] = field(default_factory=dict)
    """Microseconds, by name and size."""


def parse(text: str) -> Output:
    """Reads a driver's standard output."""
    output = Output()
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        try:
            _apply(output, words)
        except ValueError:
            continue
    return output


def last_line(text: str) -> str:
    """The last line that is not blank, shortened: what a failed driver had to say."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def _apply(output: Output, words: list[str]) -> None:
    kind = words[0]
    if kind == "@library":
        output.library = " ".join(words[1:])
    elif kind == "@skip" and len(words) > 1:
        output.skips[words[1]] = " ".join(words[2:])
    elif kind == "@note":
        output.notes.append(" ".join(words[1:]))
    elif kind == "@limit":
        _, name, size, time = words
        output.limits[name, int(size)] = _time(time)
    elif kind == "@row":
        _, collective, element, size, used, iterations, time, wrong = words
        output.rows.append(Row(collective, element, int(size), int(used), int(iterations),
                               _time(time), int(wrong)))


def _time(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value <= 0:
        raise ValueError(text)
    return value
