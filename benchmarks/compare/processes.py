"""Runs one driver at a time under a time limit, and leaves nothing behind.

Launchers put ranks into process groups of their own and ranks may outlive their launcher. So this
process adopts orphans (PR_SET_CHILD_SUBREAPER), and whatever descends from it when a start is over
is ended. Scratch files and shared-memory segments go to folders that belong to the start.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

_PREFIX = "libcomm-compare-"
_GRACE_S = 3.0
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass(frozen=True)
class Finished:
    """How a start ended."""

    status: int
    """Exit status; negative: the signal; see timed_out."""
    timed_out: bool
    out: str
    err: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Ended by itself with status 0."""
        return self.status == 0 and not self.timed_out

    def complaint(self, limit_s: float) -> str:
        """In words, when not ok."""
        if self.timed_out:
            return f"did not end within {limit_s:g} s"
        if self.status < 0:
            return f"ended by signal {-self.status} ({signal.Signals(-self.status).name})"
        return f"exit status {self.status}"


class Runner:
    """Runs commands one after the other. Use it in a with statement."""

    def __init__(self) -> None:
        self._folders: list[Path] = []
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        _remove_stale_folders()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self.clean()

    def run(self, command: list[str], environment: dict[str, str], limit_s: float) -> Finished:
        """{folder} and {shm} in arguments and values become private folders of this start."""
        try:
            folders = self._make_folders(command + list(environment.values()))
            command = [_fill(text, folders) for text in command]
            environment = {name: _fill(value, folders) for name, value in environment.items()}
            environment = os.environ | environment | {"TMPDIR": folders["{folder}"]}
            return self._run(command, environment, limit_s)
        finally:
            self.clean()

    def clean(self) -> None:
        """Ends every process of a start that is still there and removes its files."""
        deadline = time.monotonic() + _GRACE_S
        while (pids := _descendants()) and time.monotonic() < deadline:
            for pid in pids:
                _kill(pid, signal.SIGKILL)
                _reap(pid)
            time.sleep(0.002)
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)
        self._folders.clear()

    def _run(self, command: list[str], environment: dict[str, str], limit_s: float) -> Finished:
        start = time.monotonic()
        try:
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                       errors="replace", start_new_session=True,
                                       preexec_fn=_end_with_parent)
        except OSError as error:
            return Finished(127, False, "", f"{command[0]}: {error.strerror}", 0.0)
        timed_out = False
        try:
            out, err = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            timed_out = True
            out, err = self._end(process)
        except BaseException:  # ctrl-C among them
            self._end(process)
            raise
        return Finished(process.returncode, timed_out, out, err, time.monotonic() - start)

    def _end(self, process: subprocess.Popen[str]) -> tuple[str, str]:
        """First the launcher alone, which then tidies up; then everybody."""
        _kill(process.pid, signal.SIGTERM)
        try:
            return process.communicate(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            pass
        for pid in _descendants():
            _kill(pid, signal.SIGKILL)
        return process.communicate()

    def _make_folders(self, wanted: list[str]) -> dict[str, str]:
        """{folder} always, since it is TMPDIR; {shm} where somebody asks for it."""
        folders = {}
        for name, parent in _parents().items():
            if name == "{folder}" or any(name in text for text in wanted):
                path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))
                self._folders.append(path)
                folders[name] = str(path)
        return folders


def _parents() -> dict[str, str]:
    """Where private folders go."""
    shared = "/dev/shm"
    ordinary = tempfile.gettempdir()
    return {"{folder}": ordinary, "{shm}": shared if os.access(shared, os.W_OK) else ordinary}


def _remove_stale_folders() -> None:
    """Of comparisons that were killed before they could: their process is no more."""
    for parent in set(_parents().values()):
        for path in Path(parent).glob(f"{_PREFIX}*-*"):
            pid = path.name.removeprefix(_PREFIX).partition("-")[0]
            if pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
                shutil.rmtree(path, ignore_errors=True)


def _fill(text: str, folders: dict[str, str]) -> str:
    for name, path in folders.items():
        text = text.replace(name, path)
    return text


def _kill(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _reap(pid: int) -> None:
    """An adopted orphan that has ended."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass  # its own parent will


def _descendants() -> list[int]:
    """Of this process, parents before their children; zombies too, until they are reaped."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            with open(f"/proc/{entry.name}/stat", encoding="utf-8", errors="replace") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            continue  # gone
        children.setdefault(parent, []).append(int(entry.name))
    found = [os.getpid()]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _end_with_parent() -> None:
    """In the child, before exec: a killed comparison takes its driver with it."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
