"""Small made-up results for the tests."""

from benchmarks.compare import contenders
from benchmarks.compare.cases import Case
from benchmarks.compare.output import Output, Row
from benchmarks.compare.results import Results

SHM2 = Case("shm", "allreduce", 2)
TCP2 = Case("tcp", "allreduce", 2)


def contender(case: Case, key: str) -> contenders.Contender:
    """By key."""
    return next(one for one in contenders.TRANSPORTS[case.transport] if one.key == key)


def add(results: Results, case: Case, key: str, number: int, times: dict[int, float],
        wrong: int = 0) -> None:
    """A driver's rows of a round: microseconds by size."""
    rows = [Row(case.collective, "float", size, size, 10, time, wrong)
            for size, time in times.items()]
    results.add(case, contender(case, key), number, Output("library 1.0", rows))


def results_with(times: dict[str, dict[int, float]], case: Case = SHM2) -> Results:
    """One round; microseconds by contender and size."""
    results = Results()
    for key, by_size in times.items():
        add(results, case, key, 1, by_size)
    return results
