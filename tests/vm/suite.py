"""A suite: machines that are booted together, and the cases that run on them one after the other."""

from __future__ import annotations

import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from .image import Image
from .machine import BUSY, Machine, MachineFailed


class CaseFailed(Exception):
    """What was expected and what was found instead."""


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    title: str
    ranks: str
    body: Callable[..., str | None]


@dataclass(frozen=True)
class Result:
    """What became of a case."""

    suite: str
    title: str
    ranks: str
    complaint: str
    """Empty: it passed."""
    ratio: str
    seconds: float

    @property
    def verdict(self) -> str:
        """In a word."""
        return "FAILED" if self.complaint else "passed"


@dataclass
class Suite:
    """Cases get the booted machines as arguments and may return a ratio for the table."""

    name: str
    machines: tuple[str, ...]
    cpus: int
    prepare: Callable[..., None]
    counted: bool = False
    """The guest's clock counts instructions: what it measures does not depend on the machine below."""
    cases: list[Case] = field(default_factory=list)

    def case(self, title: str, ranks: str = "-") -> Callable[..., Callable[..., str | None]]:
        """Decorates the body of a case."""
        def add(body: Callable[..., str | None]) -> Callable[..., str | None]:
            self.cases.append(Case(title, ranks, body))
            return body
        return add

    def run(self, image: Image, chosen: str) -> list[Result]:
        """All cases whose title holds `chosen`."""
        results = []
        with ExitStack() as stack:
            start = time.monotonic()
            machines = self._boot(stack, image)
            _say(f"{self.name}: {len(machines)} booted in {time.monotonic() - start:.0f} s")
            self.prepare(*machines)
            for case in self.cases:
                if chosen in case.title:
                    results.append(self._perform(case, machines))
        return results

    def _boot(self, stack: ExitStack, image: Image) -> list[Machine]:
        cables = list(socket.socketpair()) if len(self.machines) == 2 else [None]
        machines = [stack.enter_context(Machine(image, name, self.cpus, 768, cable, self.counted))
                    for name, cable in zip(self.machines, cables, strict=True)]
        for machine in machines:
            machine.wait_until_booted()
        return machines

    def _perform(self, case: Case, machines: list[Machine]) -> Result:
        start = time.monotonic()
        ratio, complaint = None, ""
        try:
            ratio = case.body(*machines)
        except (CaseFailed, MachineFailed) as error:
            complaint = str(error)
        except Exception:  # a mistake of the case's own must not hide the others' results
            complaint = traceback.format_exc()
        result = Result(self.name, case.title, case.ranks, complaint, ratio or "-",
                        time.monotonic() - start)
        _say(f"{self.name}: {result.verdict} in {result.seconds:.0f} s: {case.title}")
        if complaint:
            _say(f"  {complaint}")
        return result


def expect(good: bool, text: str) -> None:
    """Ends the case unless `good`."""
    if not good:
        raise CaseFailed(text)


def run(machine: Machine, command: str, limit_s: int) -> str:
    """The output of a command that must end well."""
    finished = machine.run(command, limit_s)
    ended = f"ran for longer than {limit_s * BUSY} s" if finished.status == 137 else f"gave {finished.status}"
    expect(finished.status == 0, f"on {machine.name}: {command}\n  {ended}:\n{finished.text}")
    return finished.text


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
