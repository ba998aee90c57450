"""The reduction kernels in cache, from build/bin/reduce_bench where Google Benchmark is found."""

from __future__ import annotations

import json
from pathlib import Path

TYPES = ("float32", "bfloat16", "float16")
_FILTER = r"^sum/(float32|bfloat16|float16)/2sources/262144$"


def command(program: Path) -> list[str]:
    """Times the sum of two arrays of 256 KiB for each type."""
    return [str(program), f"--benchmark_filter={_FILTER}", "--benchmark_min_time=0.05",
            "--benchmark_format=json"]


def parse(text: str) -> dict[str, float]:
    """Nanoseconds by type; empty when the text is not what it should be."""
    try:
        runs = json.loads(text)["benchmarks"]
        return {run["name"].split("/")[1]: float(run["cpu_time"]) for run in runs}
    except (ValueError, KeyError, TypeError, IndexError):
        return {}
