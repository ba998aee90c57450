"""results.csv: every sample, for other tools."""

from __future__ import annotations

import csv
from typing import TextIO

from .results import Results

HEADER = ("transport", "collective", "ranks", "contender", "type", "size", "bytes", "round",
          "iterations", "microseconds", "wrong")


def write(results: Results, file: TextIO) -> None:
    """One line per row of a driver; limits and kernels are contenders of their own."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(HEADER)
    for sample in results.samples:
        case, row = sample.case, sample.row
        writer.writerow((case.transport, case.collective, case.ranks, sample.contender, row.type,
                         row.size, row.bytes, sample.round, row.iterations, row.microseconds,
                         row.wrong))
    for (name, size), rounds in sorted(results.limits.items()):
        for number, time in sorted(rounds.items()):
            writer.writerow(("limit", name, 2, "limits", "", size, size, number, "", time, ""))
    for name, rounds in sorted(results.kernels.items()):
        for number, time in sorted(rounds.items()):
            writer.writerow(("limit", "sum_kernel", 1, "libcomm", name, 1 << 18, 1 << 18, number,
                             "", time / 1e3, ""))
