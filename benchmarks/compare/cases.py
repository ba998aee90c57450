"""What is measured: cases, and how long all of it takes."""

from __future__ import annotations

from dataclasses import dataclass

from . import contenders
from .contenders import Contender

COLLECTIVES = ("allreduce", "allgather", "reducescatter", "broadcast", "reduce", "alltoall",
               "gather", "scatter", "sendrecv")


@dataclass(frozen=True, order=True)
class Case:
    """A table and two charts."""

    transport: str
    collective: str
    ranks: int

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.collective}-{self.transport}-{self.ranks}"

    def __str__(self) -> str:
        return f"{self.collective}, {self.transport}, {self.ranks} ranks"


def bus_factor(collective: str, ranks: int) -> float:
    """busbw / algbw, as in nccl-tests."""
    if collective == "allreduce":
        return 2 * (ranks - 1) / ranks
    if collective in ("broadcast", "reduce", "sendrecv"):
        return 1
    return (ranks - 1) / ranks


def cases_of_the_number_table() -> list[Case]:
    """All that a bar is set for (bars.py)."""
    others = COLLECTIVES[1:]
    return [Case("shm", "allreduce", 2), Case("tcp", "allreduce", 2),
            Case("shm", "allreduce", 4), Case("shm", "allreduce", 8),
            *(Case("shm", name, ranks) for ranks in (2, 4) for name in others)]


def cross(collectives: list[str], transports: list[str], ranks: list[int]) -> list[Case]:
    """Every combination."""
    return [Case(transport, collective, count) for transport in transports for count in ranks
            for collective in collectives]


@dataclass(frozen=True)
class Start:
    """One start of a driver: a contender runs all sizes of a case."""

    case: Case
    contender: Contender
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Effort:
    """How hard the drivers try."""

    budget_us: int
    least_iterations: int


def starts(cases: list[Case], sizes: list[int], peers: tuple[str, ...],
           with_best: bool) -> list[Start]:
    """Those of one round: contender after contender within a case."""
    found = []
    for case in cases:
        for one in contenders.contenders(case.transport, case.collective, peers, with_best):
            wanted = tuple(size for size in sizes if one.sizes[0] <= size <= one.sizes[1])
            if wanted:
                found.append(Start(case, one, wanted))
    return found


def estimate_seconds(start: Start, effort: Effort) -> float:
    """Roughly, from what middling machines need."""
    start_up = {"libcomm": 0.1, "openmpi": 0.4, "mpich": 0.2, "gloo": 0.3}[start.contender.library]
    total = start_up + 0.05 * start.case.ranks
    budget = effort.budget_us * 1e-6
    crowd = start.case.ranks / 2
    for size in start.sizes:
        call = crowd * (size / 1e9 + (0.004 if start.contender.library == "gloo" else 0))
        if start.contender.library == "mpich" and start.case.ranks > 2:
            call += 0.01
        check = crowd * size / 1e9
        total += max(1.5 * budget, (effort.least_iterations + 4) * call) + check
    return total
