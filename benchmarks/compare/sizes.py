"""Sizes, times and rates as people write them."""

from __future__ import annotations

_UNITS = {"K": 10, "M": 20, "G": 30}


def parse_size(text: str) -> int:
    """'8', '32K', '1.5M': bytes, powers of 1024. ValueError for anything else."""
    shift = _UNITS.get(text[-1:].upper(), 0)
    size = float(text[:-1] if shift else text) * (1 << shift)
    if not 1 <= size <= 1 << 50:
        raise ValueError(f"a size is at least 1 byte: {text}")
    return int(size)


def format_size(size: int) -> str:
    """8 -> '8 B', 32768 -> '32 KiB'."""
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 1 << shift and size % (1 << shift) == 0:
            return f"{size >> shift} {unit}"
    return f"{size} B"


def format_time(microseconds: float) -> str:
    """Three significant digits with a unit: '0.312 us', '14.2 ms'."""
    for unit, factor in (("s", 1e6), ("ms", 1e3)):
        if microseconds >= factor:
            return f"{_three_digits(microseconds / factor)} {unit}"
    return f"{_three_digits(microseconds)} us"


def format_duration(seconds: float) -> str:
    """'45 s', '3 min', '2 h 05 min'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def sizes_between(least: int, most: int, factor: int = 2) -> list[int]:
    """least, least * factor, ... up to most."""
    sizes = []
    while least <= most:
        sizes.append(least)
        least *= factor
    return sizes


def _three_digits(value: float) -> str:
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"
