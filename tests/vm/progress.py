"""How steadily packets left a machine's RDMA device: its counter, sampled many times a second."""

from __future__ import annotations

from .machine import Machine
from .soft_roce import SENT_PACKETS
from .suite import run

_FEW = 64
"""Packets that say nothing of progress: packets that are sent again, acknowledgements."""


class Progress:
    """Samples from when it is made."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._job = machine.start(
            "rm -f /tmp/samples /tmp/enough; until [ -e /tmp/enough ]; do read now rest </proc/uptime; "
            f"read sent <{SENT_PACKETS}; echo $now $sent; usleep 20000; done >/tmp/samples", 300)

    def wait_for(self, packets: int, limit_s: int) -> None:
        """Until so many more have left than when this is called."""
        run(self._machine, f"read first <{SENT_PACKETS}; until read now <{SENT_PACKETS} && "
            f"[ $((now - first)) -ge {packets} ]; do usleep 20000; done", limit_s)

    def seconds(self) -> float:
        """The machine's clock."""
        return float(run(self._machine, "cat /proc/uptime", 10).split()[0])

    def end(self) -> list[tuple[float, int]]:
        """The samples."""
        run(self._machine, "touch /tmp/enough", 10)
        self._job.wait()
        lines = run(self._machine, "cat /tmp/samples", 30).splitlines()
        return [(float(now), int(sent)) for now, sent in map(str.split, lines)]


def longest_stall(samples: list[tuple[float, int]], since: float) -> float:
    """Seconds of the longest time after `since` in which next to nothing left, although work was to follow."""
    after = [sample for sample in samples if sample[0] >= since]
    if not after:
        return 0.0
    longest, (mark, sent) = 0.0, after[0]
    for now, packets in after[1:]:
        if packets - sent >= _FEW:
            longest = max(longest, now - mark)
            mark, sent = now, packets
    return longest
