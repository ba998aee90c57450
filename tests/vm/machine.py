"""A virtual machine that runs commands: QEMU in software emulation, and the talk with the agent inside.

Nothing of it is visible outside: the agent's line and the cable to another machine are socket pairs that
QEMU inherits, and QEMU dies with this process.
"""

from __future__ import annotations

import ctypes
import shutil
import signal
import socket
import subprocess
import threading
import time
from dataclasses import dataclass

from .image import Image
from .packages import Unavailable

_QEMU = "qemu-system-x86_64"
BUSY = 6
"""How much slower than a quiet one the machine below may be: limits are meant to catch what hangs."""
_BOOT_S = 120 * BUSY
_PATIENCE_S = 20 * BUSY
"""For the agent's answer once a command's own time is over."""
_PR_SET_PDEATHSIG = 1


class MachineFailed(Exception):
    """A guest did not boot, or ended, or no longer answers."""


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    status: int
    """The shell's: 128 + signal; 137 also when it ran out of time."""
    output: bytes
    """stdout and stderr, as they came."""
    seconds: float

    @property
    def text(self) -> str:
        """The output, of programs that print text."""
        return self.output.decode(errors="replace")


class Job:
    """A command that a machine performs."""

    def __init__(self, machine: Machine, number: int, limit_s: int) -> None:
        self._machine = machine
        self._number = number
        self._limit_s = limit_s
        self._start = time.monotonic()

    def wait(self) -> Finished:
        """Ends: the guest kills what takes too long, and a guest that is silent has failed."""
        status, output = self._machine.answer(self._number, self._limit_s + _PATIENCE_S)
        return Finished(status, output, time.monotonic() - self._start)


class Machine:
    """A guest. Use it in a with statement."""

    def __init__(self, image: Image, name: str, cpus: int, memory_mb: int,
                 cable: socket.socket | None = None, counted: bool = False) -> None:
        program = shutil.which(_QEMU)
        if not program:
            raise Unavailable(f"no {_QEMU} here: apt-get install qemu-system-x86")
        self.name = name
        self._condition = threading.Condition()
        self._answers: dict[int, tuple[int, bytes]] = {}
        self._gone = False
        self._console = b""
        self._next = 1
        self._line, line = socket.socketpair()
        inherited = [line] + ([cable] if cable else [])
        try:
            self._qemu = subprocess.Popen(
                [program, *_arguments(image, name, cpus, memory_mb, line, cable, counted)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                pass_fds=[each.fileno() for each in inherited], start_new_session=True,
                preexec_fn=_end_with_parent)
        finally:
            for each in inherited:
                each.close()
        self._threads = [threading.Thread(target=work) for work in (self._read_console, self._read_line)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self._qemu.kill()
        self._qemu.wait()
        for thread in self._threads:
            thread.join()
        self._line.close()
        if self._qemu.stdout:
            self._qemu.stdout.close()

    def wait_until_booted(self) -> None:
        """The agent says 0 when it is ready."""
        self.answer(0, _BOOT_S)

    def start(self, command: str, limit_s: int) -> Job:
        """Hands a shell command of one line to the guest. The limit is for a quiet machine."""
        limit_s *= BUSY
        assert "\n" not in command, command
        number, self._next = self._next, self._next + 1
        try:
            self._line.sendall(f"{number} {limit_s} {command}\n".encode())
        except OSError as error:
            raise self._failure(f"takes no commands ({error.strerror})") from error
        return Job(self, number, limit_s)

    def run(self, command: str, limit_s: int) -> Finished:
        """Starts a command and waits for its end."""
        return self.start(command, limit_s).wait()

    def answer(self, number: int, limit_s: float) -> tuple[int, bytes]:
        """What the agent says of a command: status and output."""
        with self._condition:
            if not self._condition.wait_for(lambda: number in self._answers or self._gone, limit_s):
                raise self._failure(f"did not answer within {limit_s:g} s")
            if number not in self._answers:
                raise self._failure("ended")
            return self._answers.pop(number)

    def _failure(self, what: str) -> MachineFailed:
        last = self._console.decode(errors="replace").strip().splitlines()[-15:]
        return MachineFailed("\n  ".join([f"machine {self.name} {what}; its console's last lines:", *last]))

    def _read_console(self) -> None:
        assert self._qemu.stdout
        while data := self._qemu.stdout.read1(4096):
            self._console = (self._console + data)[-65536:]

    def _read_line(self) -> None:
        with self._line.makefile("rb") as file:
            try:
                while words := file.readline().split():
                    number, status, size = map(int, words)
                    output = file.read(size)
                    with self._condition:
                        self._answers[number] = status, output
                        self._condition.notify_all()
            except OSError:
                pass  # QEMU ended with something unread
        with self._condition:
            self._gone = True
            self._condition.notify_all()


def _arguments(image: Image, name: str, cpus: int, memory_mb: int, line: socket.socket,
               cable: socket.socket | None, counted: bool) -> list[str]:
    # Not KVM: where these tests were written, /dev/kvm opens and an ordinary guest hangs under it.
    arguments = ["-M", "q35", "-cpu", "max", "-smp", str(cpus),
                 "-m", f"{memory_mb}M", "-nodefaults", "-no-user-config", "-no-reboot",
                 "-display", "none", "-serial", "stdio",
                 "-kernel", str(image.kernel), "-initrd", str(image.initramfs),
                 "-append", f"console=ttyS0 quiet panic=-1 mitigations=off libcomm.name={name}",
                 "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=line,nr=1",
                 "-chardev", f"socket,id=line,fd={line.fileno()}"]
    if counted:  # the guest's clock goes on by 8 ns for each instruction, and skips what is idle
        arguments += ["-accel", "tcg,thread=single", "-icount", "shift=3,sleep=off"]
    else:
        arguments += ["-accel", "tcg,thread=multi"]
    if cable:
        arguments += ["-netdev", f"socket,id=cable,fd={cable.fileno()}", "-device",
                      f"virtio-net-pci,netdev=cable,mac={_address(name)},host_mtu=4200,romfile="]
    return arguments


def _address(name: str) -> str:
    """A MAC address of the range for private use."""
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in name.encode()[:3].ljust(3, b"\0"))


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
