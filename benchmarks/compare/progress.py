"""What a user sees while the rounds run: a line on a terminal, else one per round."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from .sizes import format_duration


class Progress:
    """Corrects its estimate by how long what has been done really took."""

    def __init__(self, total_s: float, file: TextIO = sys.stderr) -> None:
        self._total = max(total_s, 1e-9)
        self._done = 0.0
        self._start = time.monotonic()
        self._file = file
        self._terminal = file.isatty()

    def show(self, text: str) -> None:
        """Says what runs now."""
        if self._terminal:
            print(f"\r{text}{self._left()}\033[K", end="", file=self._file, flush=True)

    def done(self, estimate_s: float) -> None:
        """A part of the total has been done."""
        self._done += estimate_s

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._terminal:
            print("\r\033[K", end="", file=self._file)
        print(f"compare: {text}", file=self._file, flush=True)

    def end_round(self, number: int, rounds: int) -> None:
        """Somebody who reads a log wants to know, too."""
        if not self._terminal:
            self.say(f"round {number} of {rounds} done{self._left()}")

    def close(self) -> None:
        """Wipes the line."""
        if self._terminal:
            print("\r\033[K", end="", file=self._file, flush=True)

    def _left(self) -> str:
        if self._done <= 0 or self._done >= self._total:
            return ""
        elapsed = time.monotonic() - self._start
        left = elapsed * (self._total - self._done) / self._done
        return f", about {format_duration(left)} left"
