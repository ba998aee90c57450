"""What the machine allows, as a band in a chart: from what no algorithm can beat to what a plain
one should reach. Rough, but from the same run.

Made of the numbers of benchmarks/peers/limits.cc, which are between two processes; more ranks than
that share two cores' worth of work here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from .cases import Case, bus_factor
from .results import Results

Band = list[tuple[int, float, float]]
"""(size, least, most) in microseconds."""


def interpolate(curve: Mapping[int, float], size: float) -> float | None:
    """Between measured sizes a power law, below the first a constant, above the last linear."""
    sizes = sorted(curve)
    if not sizes:
        return None
    if size <= sizes[0]:
        return curve[sizes[0]]
    if size >= sizes[-1]:
        return curve[sizes[-1]] * size / sizes[-1]
    above = next(index for index, one in enumerate(sizes) if one >= size)
    left, right = sizes[above - 1], sizes[above]
    part = math.log(size / left) / math.log(right / left)
    return curve[left] * (curve[right] / curve[left]) ** part


def band(results: Results, case: Case) -> Band:
    """Empty when the limits were not measured."""
    edges = _tcp_edges if case.transport == "tcp" else _shm_edges
    found = []
    for size in results.sizes(case):
        pair = edges(results, case, results.bytes(case, size))
        if pair is not None:
            found.append((size, min(pair), max(pair)))
    return found


def _shm_edges(results: Results, case: Case, size: int) -> tuple[float, float] | None:
    exchange = results.limit("line_exchange").get(0)
    floor = interpolate(results.limit("allreduce_floor"), size)
    alone = results.limit("memcpy_alone")
    both = results.limit("memcpy_both")
    if exchange is None or floor is None or not alone or not both:
        return None
    crowd = case.ranks / 2
    if case.collective == "allreduce":
        # One exchange is enough where two take turns with buffers; and ordinary memory has to be
        # copied once to where peers can see it.
        return max(exchange, floor - exchange) * crowd, (floor + _at(both, size)) * crowd
    if case.collective in ("reduce", "reducescatter"):
        return max(exchange, floor / 2) * crowd, (floor + _at(both, size / 2)) * crowd
    # Bytes that the busiest rank writes, and all ranks together.
    busiest = size / case.ranks if case.collective == "scatter" else size
    total = {"gather": size, "scatter": size, "broadcast": size * (case.ranks - 1)}.get(
        case.collective, size * case.ranks)
    return exchange + _at(alone, busiest), exchange + _at(both, total / 2)


def _tcp_edges(results: Results, case: Case, size: int) -> tuple[float, float] | None:
    one_way = results.limit("socket_one_way")
    both_ways = results.limit("socket_both_ways")
    latency = results.limit("socket_latency").get(0)
    if latency is None or not one_way or not both_ways:
        return None
    moved = size * bus_factor(case.collective, case.ranks)
    crowd = case.ranks / 2
    return max(latency, _at(one_way, moved) - latency), (_at(both_ways, moved) + latency) * crowd


def _at(curve: Mapping[int, float], size: float) -> float:
    return interpolate(curve, size) or 0.0
