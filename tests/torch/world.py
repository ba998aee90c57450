"""Ranks of a PyTorch program as processes that share GPU 0 and use our libnccl.so.2, for the tests beside this file.

The parent starts the script once more per rank, with the library preloaded, and watches the ranks; a rank proves that
the library answers before it does anything else. Nothing here imports torch in the parent.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
LIBRARY_VARIABLE = "LIBCOMM_NCCL"
_RESULT = "result: "
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class NotHere(Exception):
    """What these tests need and this machine lacks."""


def library() -> Path:
    """Our libnccl.so.2: the one that LIBCOMM_NCCL names, or the build's."""
    path = Path(os.environ.get(LIBRARY_VARIABLE) or _ROOT / "build/lib/libnccl.so.2").resolve()
    if not path.exists():
        raise NotHere(f"no {path}: run ./dev build, or name the library by {LIBRARY_VARIABLE}")
    return path


def need_gpu() -> None:
    """Asks in another process: a rank must be the first to touch the GPU in its own."""
    question = "import torch; print(torch.__version__, torch.cuda.is_available() and torch.cuda.get_device_name(0))"
    answer = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise NotHere("no PyTorch here: " + (answer.stderr.strip().splitlines() or ["python failed"])[-1])
    if answer.stdout.split()[1] == "False":
        raise NotHere(f"PyTorch {answer.stdout.split()[0]} finds no GPU here")
    print(f"PyTorch {answer.stdout.strip()}, library {library()}", flush=True)


class Ranks:
    """`count` processes of `script`, each with RANK and so on in its environment and its output in a file. In a
    rehearsal they run without the library."""

    def __init__(self, script: str, count: int, arguments: list[str], environment: dict[str, str] | None = None,
                 rehearsal: bool = False):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that __exit__ runs
        self._folder = tempfile.TemporaryDirectory(prefix="libcomm-torch-")
        self._shm = _shm_names()
        preload = os.environ.get("LD_PRELOAD")
        ours = {} if rehearsal else {
            "LD_PRELOAD": f"{library()}:{preload}" if preload else str(library()), LIBRARY_VARIABLE: str(library())}
        common = {
            **os.environ, **ours, "NCCL_DEBUG": "VERSION", "PYTHONUNBUFFERED": "1",
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()),
            "GLOO_SOCKET_IFNAME": "lo", "WORLD_SIZE": str(count), "LOCAL_RANK": "0", **(environment or {})}
        self.processes = []
        self._outputs = []
        for rank in range(count):
            output = Path(self._folder.name) / f"rank-{rank}"
            with output.open("wb") as stream:
                self.processes.append(subprocess.Popen(
                    [sys.executable, "-B", script, "--as-rank", *arguments], env={**common, "RANK": str(rank)},
                    stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True))
            self._outputs.append(output)

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # a session of its own: it and its children
                process.wait()
        self._folder.cleanup()

    def output(self, rank: int) -> str:
        return self._outputs[rank].read_text(errors="replace")

    def wait(self, seconds: float, ranks: list[int] | None = None) -> list[int]:
        """Waits until the ranks (default: all) have ended. Returns those that have not in time."""
        waited = [self.processes[rank] for rank in (range(len(self.processes)) if ranks is None else ranks)]
        end = time.monotonic() + seconds
        while any(process.poll() is None for process in waited) and time.monotonic() < end:
            time.sleep(0.05)
        return [self.processes.index(process) for process in waited if process.poll() is None]

    def result(self, rank: int) -> object:
        """What the rank gave to tell(); None when it gave nothing."""
        lines = [line for line in self.output(rank).splitlines() if line.startswith(_RESULT)]
        return json.loads(lines[-1][len(_RESULT):]) if lines else None

    def complaints(self, late: list[int]) -> list[str]:
        """One line for each rank that did not end well; `late` are those that wait() returned."""
        found = []
        for rank, process in enumerate(self.processes):
            if rank in late:
                found.append(f"rank {rank} has not ended in time; last output: {self._last(rank)}")
            elif process.poll() not in (None, 0):
                found.append(f"rank {rank} ended with {process.returncode}; last output: {self._last(rank)}")
        return found

    def left_in_shm(self) -> list[str]:
        """Names in /dev/shm that were not there before the ranks."""
        return sorted(_shm_names() - self._shm)

    def _last(self, rank: int) -> str:
        lines = [line for line in self.output(rank).splitlines() if line.strip() and not line.startswith(_RESULT)]
        return " / ".join(lines[-6:])


class Verdicts:
    """Prints one line per check and the summary."""

    def __init__(self, name: str):
        self._name = name
        self._counts = {"PASS": 0, "SKIP": 0, "FAIL": 0}

    def add(self, check: str, complaint: str | None, note: str = "") -> None:
        self._line("FAIL" if complaint else "PASS", check, complaint or note)

    def skip(self, check: str, why: str) -> None:
        self._line("SKIP", check, why)

    def end(self) -> int:
        """The exit status."""
        counts = self._counts
        print(f"{self._name}: {counts['PASS']} passed, {counts['SKIP']} skipped, {counts['FAIL']} failed", flush=True)
        return int(counts["FAIL"] > 0 or counts["PASS"] == 0)

    def _line(self, verdict: str, check: str, text: str) -> None:
        self._counts[verdict] += 1
        print(f"{verdict} {check}" + (f": {text}" if text else ""), flush=True)


def skipped(name: str, reason: NotHere) -> int:
    """What a script says and returns that cannot run."""
    print(f"{name}: cannot run: {reason}", file=sys.stderr)
    return 1


# ---- In a rank


def tell(result: object) -> None:
    """To the parent."""
    print("\n" + _RESULT + json.dumps(result), flush=True)


def whose_calls() -> str:
    """The file that the process's ncclAllReduce is in. With the library preloaded, PyTorch calls that one."""
    address = ctypes.cast(ctypes.CDLL(None).ncclAllReduce, ctypes.c_void_p).value or 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(word, 16) for word in line.split()[0].split("-"))
        if first <= address < last:
            return line.split(maxsplit=5)[-1]
    return "no file"


def need_our_library() -> None:
    """Ends the rank unless our library answers to PyTorch; says so where another libnccl is in the process, too."""
    import torch  # pylint: disable=import-outside-toplevel

    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    torch.cuda.set_device(0)
    ours = os.environ[LIBRARY_VARIABLE]
    if not os.path.samefile(whose_calls(), ours):
        sys.exit(f"ncclAllReduce is that of {whose_calls()} and not of {ours}")
    mapped = set(re.findall(r"/\S*libnccl\.so\S*", Path("/proc/self/maps").read_text()))
    others = [path for path in mapped if not os.path.samefile(path, ours)]
    if others:
        print(f"note: {', '.join(others)} is loaded too; ours comes first", flush=True)
    print(f"ncclGetVersion says {torch.cuda.nccl.version()}", flush=True)


def said_its_name(output: str) -> bool:
    """Whether the library wrote its version line, which rank 0 does with NCCL_DEBUG=VERSION."""
    return re.search(r"\blibcomm\b.*\bAPI \d+\.\d+\.\d+", output) is not None


def _shm_names() -> set[str]:
    return set(os.listdir("/dev/shm"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
