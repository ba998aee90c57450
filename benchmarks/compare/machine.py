"""What a reader has to know about the machine and the run."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path


def about(arguments: list[str], rounds: int, seconds: float, load_before: float) -> list[str]:
    """Lines for the top of the table."""
    return [
        f"{time.strftime('%Y-%m-%d %H:%M')}, {_processor()}, "
        f"{len(os.sched_getaffinity(0))} cores, Linux {platform.release()}; "
        f"load average before the run {load_before:.2f}",
        f"made by `{' '.join(['./dev compare', *arguments])}`",
        f"{rounds} interleaved rounds in {seconds:.0f} s; times are medians over rounds, ratios "
        "medians of the rounds' own ratios",
        "ratio = our time / the time of the best peer's defaults at that size; below 1 is faster",
        "float sum, out of place (broadcast in place), longest rank, every element checked; size is"
        " a rank's larger buffer",
    ]


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
