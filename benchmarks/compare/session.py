"""The rounds: in each, case after case, all contenders of the case take their turn.

Rounds are outermost, so that a busy minute of the machine touches one round of every case and not
all rounds of one; who begins changes from round to round.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter

from . import cases, contenders, kernels
from .cases import Case, Start
from .options import Options
from .output import last_line, parse
from .processes import Finished, Runner
from .progress import Progress
from .results import Failure, Results
from .sizes import format_size

_LAUNCHERS = {"openmpi": "mpirun.openmpi", "mpich": "mpiexec.mpich"}
_MOST_FAILURES = 2  # of a contender in a case; a hang costs the whole time limit each time
_LIMITS_BUDGET_US = 4000


class Session:
    """One comparison. run() may be interrupted: what has been measured is in results."""

    def __init__(self, options: Options, runner: Runner) -> None:
        self.results = Results()
        self._options = options
        self._runner = runner
        self._cores = len(os.sched_getaffinity(0))
        self._failures: Counter[tuple[Case, str]] = Counter()
        self._starts = [start for start in cases.starts(options.cases, options.sizes,
                                                        options.peers, options.with_best)
                        if self._can_run(start.contender.library)]
        self._costs = {start: cases.estimate_seconds(start, options.effort)
                       for start in self._starts}
        self.estimate_s = options.rounds * (sum(self._costs.values()) + self._side_cost())

    @property
    def count(self) -> int:
        """Starts over all rounds."""
        return self._options.rounds * len(self._starts)

    def run(self, progress: Progress) -> None:
        """All rounds."""
        for start in self._starts:
            self.results.contenders[start.case][start.contender.key] = start.contender
        for number in range(1, self._options.rounds + 1):
            progress.show(f"round {number} of {self._options.rounds}: limits")
            self._measure_limits(number)
            self._measure_kernels(number)
            progress.done(self._side_cost())
            for start in self._in_turn(number):
                progress.show(f"round {number} of {self._options.rounds}: {start.case}: "
                              f"{start.contender.title}")
                self._measure(start, number, progress)
                progress.done(self._costs[start])
            progress.end_round(number, self._options.rounds)

    def _side_cost(self) -> float:
        """Of the limits in a round."""
        return 0.06 * len(self._options.sizes) + 20 * max(self._options.sizes) / 1e9 + 0.5

    def _can_run(self, library: str) -> bool:
        """Else notes why not, once."""
        driver = self._options.programs / f"{library}_driver"
        launcher = _LAUNCHERS.get(library)
        reason = ""
        if not driver.exists():
            reason = f"{driver} is not there: its library was not found when the drivers were built"
        elif launcher and not shutil.which(launcher):
            reason = f"no {launcher}"
        if reason:
            self.results.note(f"{library} did not run: {reason}")
        return not reason

    def _in_turn(self, number: int) -> list[Start]:
        """Case by case; within a case another contender begins in every round."""
        by_case: dict[Case, list[Start]] = {}
        for start in self._starts:
            by_case.setdefault(start.case, []).append(start)
        order = []
        for group in by_case.values():
            first = (number - 1) % len(group)
            order += group[first:] + group[:first]
        return order

    def _measure(self, start: Start, number: int, progress: Progress) -> None:
        key = (start.case, start.contender.key)
        if self._failures[key] >= _MOST_FAILURES:
            return
        effort = self._options.effort
        arguments = ["--collectives", start.case.collective,
                     "--sizes", ",".join(map(str, start.sizes)),
                     "--budget-us", str(effort.budget_us),
                     "--least-iterations", str(effort.least_iterations)]
        command = contenders.command(start.contender, self._options.programs, start.case.ranks,
                                     self._cores, arguments)
        finished = self._runner.run(command, contenders.environment(start.contender),
                                    self._options.limit_s)
        output = parse(finished.out)
        self.results.add(start.case, start.contender, number, output)
        missing = len(start.sizes) - len(output.rows)
        wrong = [format_size(row.size) for row in output.rows if row.wrong]
        if wrong:
            self._fail(start, number, finished, progress,
                       f"gave wrong results at {', '.join(wrong)}")
        elif not finished.ok and start.contender.is_peer and not missing:
            # A peer that stumbles on its way out has measured all the same.
            self.results.note(f"{start.case}: {start.contender.title}: after its last row: "
                              f"{finished.complaint(self._options.limit_s)}")
        elif not finished.ok:
            self._fail(start, number, finished, progress)
        elif missing and start.case.collective not in output.skips:
            self._fail(start, number, finished, progress, f"left out {missing} sizes")

    def _fail(self, start: Start, number: int, finished: Finished, progress: Progress,
              complaint: str = "") -> None:
        self._failures[start.case, start.contender.key] += 1
        complaint = complaint or finished.complaint(self._options.limit_s)
        # How far it came is more than what it said when it was ended.
        rows = "\n".join(line for line in finished.out.splitlines() if line.startswith("@"))
        said = last_line(rows) if finished.timed_out else ""
        said = said or last_line(finished.err) or last_line(finished.out)
        self.results.failures.append(
            Failure(start.case, start.contender.key, number, complaint, said))
        progress.say(f"{start.case}: {start.contender.title} {complaint}: {said}")

    def _measure_limits(self, number: int) -> None:
        command = [str(self._options.programs / "limits"),
                   "--sizes", ",".join(map(str, self._options.sizes)),
                   "--budget-us", str(_LIMITS_BUDGET_US)]
        finished = self._runner.run(command, {}, self._options.limit_s)
        for key, time in parse(finished.out).limits.items():
            self.results.limits[key][number] = time
        if not finished.ok:
            self.results.note(f"limits {finished.complaint(self._options.limit_s)}: "
                       f"{last_line(finished.err)}")

    def _measure_kernels(self, number: int) -> None:
        program = self._options.programs.parent / "bin" / "reduce_bench"
        if not program.exists():
            self.results.note(f"the kernels were not measured: no {program} (libbenchmark-dev)")
            return
        finished = self._runner.run(kernels.command(program), {}, self._options.limit_s)
        for name, time in kernels.parse(finished.out).items():
            self.results.kernels[name][number] = time
