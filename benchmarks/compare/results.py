"""All that was measured, by case, contender and size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from .cases import Case
from .contenders import Contender
from .output import Output, Row
from .stats import Rounds, median, median_ratio


@dataclass(frozen=True)
class Sample:
    """A row of a driver in a round."""

    case: Case
    contender: str
    round: int
    row: Row


@dataclass(frozen=True)
class Failure:
    """A start that did not end well, or that gave a wrong result."""

    case: Case
    contender: str
    round: int
    complaint: str
    last_line: str


@dataclass
class Results:
    """Grows while the rounds run; a wrong result is kept but never used in a ratio."""

    samples: list[Sample] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    skips: dict[tuple[Case, str], str] = field(default_factory=dict)
    limits: dict[tuple[str, int], dict[int, float]] = field(
        default_factory=lambda: defaultdict(dict))
    """By name and size: microseconds by round."""
    kernels: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    """By type: nanoseconds by round."""
    contenders: dict[Case, dict[str, Contender]] = field(
        default_factory=lambda: defaultdict(dict))
    libraries: dict[str, str] = field(default_factory=dict)
    """What each library says it is."""
    notes: list[str] = field(default_factory=list)
    _times: dict[tuple[Case, str, int], dict[int, float]] = field(
        default_factory=lambda: defaultdict(dict))
    _bytes: dict[tuple[Case, int], int] = field(default_factory=dict)

    def add(self, case: Case, contender: Contender, number: int, output: Output) -> None:
        """Takes over what a driver said in a round."""
        self.contenders[case][contender.key] = contender
        if output.library:
            self.libraries[contender.library] = output.library
        for text in output.notes:
            self.note(f"{case}: {contender.title}: {text}")
        for collective, reason in output.skips.items():
            if collective == case.collective:
                self.skips[case, contender.key] = reason
        for row in output.rows:
            if row.collective != case.collective:
                continue
            self.samples.append(Sample(case, contender.key, number, row))
            self._bytes[case, row.size] = row.bytes
            if row.wrong == 0:
                self._times[case, contender.key, row.size][number] = row.microseconds

    def note(self, text: str) -> None:
        """Once, however often it is said."""
        if text not in self.notes:
            self.notes.append(text)

    def cases(self) -> list[Case]:
        """In the order in which they came."""
        return list(self.contenders)

    def sizes(self, case: Case) -> list[int]:
        """Those that anybody measured."""
        return sorted({size for one, _, size in self._times if one == case})

    def times(self, case: Case, contender: str, size: int) -> Rounds:
        """Microseconds by round."""
        return self._times.get((case, contender, size), {})

    def time(self, case: Case, contender: str, size: int) -> float | None:
        """The median."""
        return median(self.times(case, contender, size))

    def bytes(self, case: Case, size: int) -> int:
        """Of the larger buffer."""
        return self._bytes.get((case, size), size)

    def best_peer(self, case: Case, size: int) -> str | None:
        """The peer whose defaults take least time."""
        times = {one.key: self.time(case, one.key, size)
                 for one in self.contenders.get(case, {}).values()
                 if one.is_peer and one.is_default}
        known = {key: time for key, time in times.items() if time is not None}
        return min(known, key=lambda key: known[key]) if known else None

    def ratio(self, case: Case, size: int, ours: str = "libcomm",
              peer: str | None = None) -> float | None:
        """Our time over a peer's, or over the best peer's at this size."""
        peer = peer or self.best_peer(case, size)
        if peer is None:
            return None
        return median_ratio(self.times(case, ours, size), self.times(case, peer, size))

    def ratios(self, case: Case, ours: str = "libcomm", least: int = 0, most: int = 1 << 62,
               peer: str | None = None) -> Iterator[tuple[int, float]]:
        """By size, where there is one."""
        for size in self.sizes(case):
            if least <= size <= most:
                ratio = self.ratio(case, size, ours, peer)
                if ratio is not None:
                    yield size, ratio

    def limit(self, name: str) -> dict[int, float]:
        """Medians of a limit by size."""
        found = {}
        for (one, size), rounds in self.limits.items():
            value = median(rounds)
            if one == name and value is not None:
                found[size] = value
        return found
