"""table.md: the bars, then a table per case, then who ran how, and what failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from . import bars
from .cases import Case
from .contenders import Contender
from .results import Results
from .sizes import format_size, format_time
from .stats import geometric_mean


def write(results: Results, about: Sequence[str]) -> str:
    """The whole page; `about` is what the reader has to know about the run."""
    parts = ["# libcomm beside its peers\n", "\n".join(f"- {line}" for line in about) + "\n"]
    parts += [_failures(results), _bars(results), _means(results)]
    parts += [_case(results, case) for case in results.cases()]
    parts += [_limits(results), _settings(results)]
    return "\n".join(part for part in parts if part)


_WORDS = ("verdict", "where", "best peer", "version", "setting")


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column and those of words to the left, all others to the right."""
    rules = ["---" if index == 0 or title in _WORDS else "---:"
             for index, title in enumerate(header)]
    lines = ["| " + " | ".join(header) + " |", "|" + "|".join(rules) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _failures(results: Results) -> str:
    if not results.failures and not results.notes:
        return ""
    lines = [f"- {note}" for note in results.notes]
    for failure in results.failures:
        title = results.contenders[failure.case][failure.contender].title
        lines.append(f"- {failure.case}, round {failure.round}: {title} {failure.complaint}. "
                     f"Its last line: `{failure.last_line or 'none'}`")
    return "## What went wrong\n\n" + "\n".join(lines) + "\n"


def _bars(results: Results) -> str:
    rows = []
    for verdict in bars.evaluate(results):
        measured = verdict.measured
        rows.append((verdict.bar.name, f"{verdict.bar.bar:.2f}", f"{verdict.bar.stretch:.2f}",
                     _number(measured.value if measured else None), verdict.text,
                     measured.detail if measured else ""))
    return "## Bars\n\n" + _table(("case", "bar", "stretch", "measured", "verdict", "where"), rows)


def _ours(results: Results, case: Case) -> list[Contender]:
    """Our lines that are comparable with the peers'."""
    return [one for one in results.contenders[case].values()
            if not one.is_peer and one.key != "libcomm-bf16"]


def _means(results: Results) -> str:
    rows = []
    for case in results.cases():
        row = [str(case)]
        for key in ("libcomm", "libcomm-mem"):
            values = [value for _, value in results.ratios(case, key)]
            row += [_number(geometric_mean(values)), _number(max(values, default=None))]
        rows.append(row)
    header = ("case", "libcomm", "worst", "commMemAlloc", "worst")
    return ("## Geometric means over sizes of our time / best peer's default time\n\n"
            + _table(header, rows))


def _case(results: Results, case: Case) -> str:
    lines = list(results.contenders[case].values())
    ours = _ours(results, case)
    header = ["size", *(one.title for one in lines), *(f"ratio {one.title}" for one in ours),
              "best peer"]
    rows = []
    for size in results.sizes(case):
        row = [format_size(size)]
        row += [_time(results, case, one, size) for one in lines]
        row += [_number(results.ratio(case, size, one.key)) for one in ours]
        best = results.best_peer(case, size)
        row.append(results.contenders[case][best].title if best else "-")
        rows.append(row)
    text = f"## {str(case)[0].upper()}{str(case)[1:]}\n\n" + _table(header, rows)
    skips = [f"- {results.contenders[case][key].title}: {reason}"
             for (one, key), reason in results.skips.items() if one == case]
    return text + ("\n" + "\n".join(skips) + "\n" if skips else "")


def _time(results: Results, case: Case, contender: Contender, size: int) -> str:
    if any(sample.case == case and sample.contender == contender.key and sample.row.size == size
           and sample.row.wrong for sample in results.samples):
        return "**WRONG**"
    time = results.time(case, contender.key, size)
    return "-" if time is None else format_time(time)


def _limits(results: Results) -> str:
    if not results.limits:
        return ""
    names = ("allreduce_floor", "memcpy_alone", "memcpy_both", "kernel_read_both", "socket_one_way",
             "socket_both_ways")
    curves = {name: results.limit(name) for name in names}
    sizes = sorted({size for curve in curves.values() for size in curve})
    rows = [[format_size(size),
             *(format_time(curve[size]) if size in curve else "-" for curve in curves.values())]
            for size in sizes]
    singles = [f"{name.replace('_', ' ')} {format_time(results.limit(name)[0])}"
               for name in ("line_exchange", "socket_latency") if 0 in results.limit(name)]
    header = ("size", *(name.replace("_", " ") for name in names))
    return ("## This machine's limits, between two processes\n\n" + ", ".join(singles) + "\n\n"
            + _table(header, rows))


def _settings(results: Results) -> str:
    seen: dict[tuple[str, str], Contender] = {}
    for case in results.cases():
        for one in results.contenders[case].values():
            seen[case.transport, one.key] = one
    rows = [(f"{transport}, {one.title}", results.libraries.get(one.library, "-"),
             f"`{one.setting}`") for (transport, _), one in sorted(seen.items())]
    return "## Who ran how\n\n" + _table(("line", "version", "setting"), rows)
