"""The numbers that libcomm set out to reach, and whether a run reached them.

ratio = our time / the time of the best peer's defaults, per size the median over rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .cases import COLLECTIVES, Case
from .contenders import BFLOAT16_SIZES
from .results import Results
from .sizes import format_size
from .stats import geometric_mean, median_ratio

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Measured:
    """What a run has to say about a bar."""

    value: float
    detail: str
    """Which point it is, or over how many."""


@dataclass(frozen=True)
class Bar:
    """One demand; the less the better."""

    name: str
    bar: float
    stretch: float
    measure: Callable[[Results], Measured | None]
    """None: the case did not run."""


@dataclass(frozen=True)
class Verdict:
    """A bar beside what was measured."""

    bar: Bar
    measured: Measured | None

    @property
    def text(self) -> str:
        """met, stretch met, not met, or not run."""
        if self.measured is None:
            return "not run"
        if self.measured.value <= self.bar.stretch:
            return "met, and the stretch"
        return "met" if self.measured.value <= self.bar.bar else "**not met**"


def evaluate(results: Results) -> list[Verdict]:
    """Every bar in order."""
    return [Verdict(bar, bar.measure(results)) for bar in BARS]


Point = tuple[str, float]
"""Where, and the ratio there."""


def _points(results: Results, case: Case, ours: str = "libcomm", least: int = 0,
            most: int = 1 << 62, peer: str | None = None) -> list[Point]:
    memory = " in commMemAlloc memory" if ours == "libcomm-mem" else ""
    where = f"{case.collective} {case.transport} {case.ranks} ranks"
    return [(f"{where} {format_size(size)}{memory}", value)
            for size, value in results.ratios(case, ours, least, most, peer)]


def _worst(points: Iterable[Point]) -> Measured | None:
    points = list(points)
    if not points:
        return None
    where, value = max(points, key=lambda point: point[1])
    return Measured(value, f"worst of {len(points)}: {where}")


def _mean(points: Iterable[Point]) -> Measured | None:
    points = list(points)
    value = geometric_mean(value for _, value in points)
    return None if value is None else Measured(value, f"geometric mean of {len(points)} sizes")


def _each_size(case: Case, least: int, most: int, ours: str = "libcomm",
               peer: str | None = None) -> Callable[[Results], Measured | None]:
    return lambda results: _worst(_points(results, case, ours, least, most, peer))


def _over_sizes(case: Case, least: int = 8,
                most: int = 128 * MIB) -> Callable[[Results], Measured | None]:
    return lambda results: _mean(_points(results, case, least=least, most=most))


def _more_ranks(results: Results) -> Measured | None:
    return _worst(point for ranks in (4, 8)
                  for point in _points(results, Case("shm", "allreduce", ranks)))


def _any_point(results: Results) -> Measured | None:
    cases = [case for case in results.cases() if case.transport == "shm"]
    return _worst(point for case in cases for ours in ("libcomm", "libcomm-mem")
                  for point in _points(results, case, ours))


def _kernel(element: str) -> Callable[[Results], Measured | None]:
    def measure(results: Results) -> Measured | None:
        value = median_ratio(results.kernels.get(element, {}), results.kernels.get("float32", {}))
        return None if value is None else Measured(value, "sum of two arrays of 256 KiB")
    return measure


def _bfloat16(results: Results) -> Measured | None:
    case = Case("shm", "allreduce", 2)
    least, most = BFLOAT16_SIZES
    return _worst(_points(results, case, "libcomm-bf16", least, most, "libcomm"))


_SHM2 = Case("shm", "allreduce", 2)
_TCP2 = Case("tcp", "allreduce", 2)

BARS = (
    Bar("shm, 2 ranks, all-reduce, 8 B", 0.40, 0.30, _each_size(_SHM2, 8, 8)),
    Bar("shm, 2 ranks, all-reduce, 512 B to 32 KiB, each size", 0.60, 0.35,
        _each_size(_SHM2, 512, 32 * KIB)),
    Bar("shm, 2 ranks, all-reduce, 64 KiB to 8 MiB, plain memory, each size", 0.80, 0.50,
        _each_size(_SHM2, 64 * KIB, 8 * MIB)),
    Bar("shm, 2 ranks, all-reduce, 16 to 128 MiB, plain memory, each size", 0.50, 0.35,
        _each_size(_SHM2, 16 * MIB, 128 * MIB)),
    Bar("the same in commMemAlloc memory, 64 KiB to 8 MiB, each size", 0.45, 0.30,
        _each_size(_SHM2, 64 * KIB, 8 * MIB, "libcomm-mem")),
    Bar("the same in commMemAlloc memory, 16 to 128 MiB, each size", 0.28, 0.16,
        _each_size(_SHM2, 16 * MIB, 128 * MIB, "libcomm-mem")),
    Bar("shm, 4 and 8 ranks, all-reduce, each size", 0.80, 0.50, _more_ranks),
    *(Bar(f"shm, {ranks} ranks, {name}, geometric mean over 8 B to 128 MiB", 0.60, 0.40,
          _over_sizes(Case("shm", name, ranks)))
      for ranks in (2, 4) for name in COLLECTIVES[1:]),
    Bar("no single point of shared memory", 1.05, 0.90, _any_point),
    Bar("TCP on loopback, 2 ranks, all-reduce, 8 B", 0.80, 0.65, _each_size(_TCP2, 8, 8)),
    Bar("TCP on loopback, 2 ranks, all-reduce, geometric mean over 64 KiB to 128 MiB", 0.75, 0.60,
        _over_sizes(_TCP2, 64 * KIB)),
    Bar("TCP against Gloo, 2 ranks, all-reduce, up to 4 KiB, each size", 0.10, 0.04,
        _each_size(_TCP2, 0, 4 * KIB, peer="gloo")),
    Bar("TCP against Gloo, 2 ranks, all-reduce, from 16 MiB, each size", 0.75, 0.60,
        _each_size(_TCP2, 16 * MIB, 1 << 62, peer="gloo")),
    Bar("reduction kernel in cache, bfloat16 relative to float of the same bytes", 1.8, 1.5,
        _kernel("bfloat16")),
    Bar("reduction kernel in cache, float16 relative to float of the same bytes", 2.7, 2.3,
        _kernel("float16")),
    Bar("whole all-reduce of bfloat16, 1 to 16 MiB, relative to float of the same bytes", 1.3, 1.1,
        _bfloat16),
)
