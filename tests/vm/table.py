"""The table of results."""

from __future__ import annotations

from .suite import Result

_HEAD = ("test", "ranks", "result", "ratio to perftest", "seconds")


def write(results: list[Result]) -> str:
    """As Markdown whose columns line up."""
    rows = [(f"{result.suite}: {result.title}", result.ranks, result.verdict, result.ratio,
             f"{result.seconds:.0f}") for result in results]
    widths = [max(map(len, column)) for column in zip(_HEAD, *rows)]
    rule = tuple("-" * width for width in widths)
    return "\n".join("| " + " | ".join(word.ljust(width) for word, width in zip(row, widths)) + " |"
                     for row in (_HEAD, rule, *rows))
