"""The arithmetic of the tables.

A machine's speed drifts, so times are compared within a round and then over rounds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping

Rounds = Mapping[int, float]
"""A value for each round that has one."""


def median(rounds: Rounds) -> float | None:
    """Over the rounds; None without any."""
    return statistics.median(rounds.values()) if rounds else None


def ratios(ours: Rounds, theirs: Rounds) -> dict[int, float]:
    """ours / theirs in every round that has both."""
    return {number: ours[number] / theirs[number]
            for number in ours if theirs.get(number, 0) > 0}


def median_ratio(ours: Rounds, theirs: Rounds) -> float | None:
    """The median of the rounds' ratios; None when no round has both."""
    return median(ratios(ours, theirs))


def geometric_mean(values: Iterable[float]) -> float | None:
    """None without values, or when one is not positive."""
    logs = []
    for value in values:
        if value <= 0:
            return None
        logs.append(math.log(value))
    return math.exp(statistics.fmean(logs)) if logs else None
