"""Compares what rdma_edge_cases prints with outcomes.txt: check.py PROGRAM runs it first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_FOLDER = Path(__file__).parent


def expected(*, soft_roce: bool) -> dict[str, list[str]]:
    """What each case may come to, on the double or on the kernel's device."""
    outcomes = _read("outcomes.txt")
    if soft_roce:
        outcomes |= _read("soft_roce.txt")
    return outcomes


def complaints(text: str, outcomes: dict[str, list[str]]) -> list[str]:
    """A sentence for every case that came out differently, was left out or is unknown."""
    found = dict(_parse(line) for line in text.splitlines() if ": " in line)
    said = [f"{case}: {outcome}; expected: {' or '.join(outcomes[case])}"
            for case, outcome in found.items() if case in outcomes and outcome not in outcomes[case]]
    said += [f"{case}: did not run" for case in outcomes if case not in found]
    said += [f"{case}: {outcome}; not in outcomes.txt" for case, outcome in found.items() if case not in outcomes]
    return said


def _read(name: str) -> dict[str, list[str]]:
    outcomes: dict[str, list[str]] = {}
    for line in (_FOLDER / name).read_text().splitlines():
        if line and not line.startswith("#"):
            case, outcome = _parse(line)
            outcomes.setdefault(case, []).append(outcome)
    return outcomes


def _parse(line: str) -> tuple[str, str]:
    case, outcome = line.split(": ", 1)
    return case, outcome.rstrip()


def main(arguments: list[str]) -> int:
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    said = complaints(ended.stdout, expected(soft_roce=False))
    print(*said, sep="\n")
    print(f"{len(said)} of the edge cases differ; {arguments[0]} ended with {ended.returncode}")
    print(ended.stderr, end="")
    return int(bool(said) or ended.returncode != 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
