"""Measures, then writes the table, the CSV file and the charts."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from . import bars, charts, csv_file, machine, markdown, options
from .processes import Runner
from .progress import Progress
from .results import Results
from .session import Session
from .sizes import format_duration


def main(arguments: list[str]) -> int:
    """The exit status: 0 when every driver of ours ended well with right results."""
    chosen = options.parse(arguments)
    if not (chosen.programs / "libcomm_driver").exists():
        print(f"compare: no {chosen.programs}/libcomm_driver; ./dev compare builds it",
              file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    load = os.getloadavg()[0]
    interrupted = False
    with Runner() as runner:
        session = Session(chosen, runner)
        progress = Progress(session.estimate_s)
        progress.say(f"{len(chosen.cases)} cases, {len(chosen.sizes)} sizes, {chosen.rounds} "
                     f"rounds, {session.count} starts: about "
                     f"{format_duration(session.estimate_s)}")
        start = time.monotonic()
        try:
            session.run(progress)
        except KeyboardInterrupt:
            interrupted = True
            session.results.notes.append("the run was interrupted: rounds are missing")
        finally:
            progress.close()
    about = machine.about(arguments, chosen.rounds, time.monotonic() - start, load)
    write_files(session.results, about, chosen.output)
    print(f"{chosen.output}/table.md, results.csv and charts")
    if interrupted:
        return 130
    return status(session.results, chosen.strict)


def write_files(results: Results, about: list[str], folder: Path) -> None:
    """Replaces what an earlier run left in the folder; the table goes to stdout, too."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    table = markdown.write(results, about)
    (folder / "table.md").write_text(table, encoding="utf-8")
    with open(folder / "results.csv", "w", encoding="utf-8", newline="") as file:
        csv_file.write(results, file)
    for case in results.cases():
        for name, text in charts.write(results, case).items():
            (folder / name).write_text(text, encoding="utf-8")
    print(table)


def status(results: Results, strict: bool) -> int:
    """1 when a driver of ours failed, a result of ours was wrong, or (strict) a bar was missed."""
    ours = any(failure.contender.startswith("libcomm") for failure in results.failures)
    missed = any(verdict.measured and verdict.measured.value > verdict.bar.bar
                 for verdict in bars.evaluate(results))
    return int(ours or (strict and missed))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
