"""Two machines, a kernel each, with Soft-RoCE on the two ends of a cable."""

from __future__ import annotations

from collections import Counter

from . import figures, roce
from .machine import Machine
from .soft_roce import DEVICE, add_device, all_well, start_ranks
from .suite import Suite, expect, run


# busybox's shell prefers its own tc to one in PATH.
_TC = "/usr/bin/tc"
_NO_RDMA = "COMM_IB_DISABLE=1"


def _prepare(left: Machine, right: Machine) -> None:
    add_device(left, "eth0", "10.0.0.1")
    add_device(right, "eth0", "10.0.0.2")


SUITE = Suite("pair", ("left", "right"), 1, _prepare)


class Capture:
    """tcpdump on a machine's cable, headers alone. -Z: there are no other users to become."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._job = machine.start("tcpdump -Z root -i eth0 -U --immediate-mode -s 96 -w /tmp/capture", 120)
        run(machine, "until [ -s /tmp/capture ]; do sleep 0.1; done", 20)

    def end(self) -> bytes:
        """The capture file."""
        run(self._machine, "killall -INT tcpdump", 10)
        self._job.wait()
        return self._machine.run("cat /tmp/capture; rm /tmp/capture", 30).output


def with_netem(left: Machine, right: Machine, what: str, variables: str) -> str:
    """Collectives over a cable that misbehaves in both directions; what tc counted on the left."""
    for machine in (left, right):
        run(machine, f"{_TC} qdisc replace dev eth0 root netem {what}", 10)
    try:
        for text in all_well(start_ranks((left, right), 2, "vm_rank 3 4", 150, variables)):
            expect("right:" in text, text)
        return run(left, f"{_TC} -s qdisc show dev eth0", 10)
    finally:
        for machine in (left, right):
            run(machine, f"{_TC} qdisc del dev eth0 root", 10)


@SUITE.case("RDMA writes cross from kernel to kernel as UDP to port 4791", "2")
def _write(left: Machine, right: Machine) -> None:
    capture = Capture(left)
    receiver = right.start(f"rdma_write_bw --device {DEVICE} --size 65536 --count 16 --listen 9999", 60)
    text = run(left, f"rdma_write_bw --device {DEVICE} --size 65536 --count 16 --connect 10.0.0.2:9999", 60)
    expect(receiver.wait().status == 0, "the receiver failed")
    figures.write_bw(text)
    sent = [packet for packet in roce.packets(capture.end()) if packet.source == "10.0.0.1"]
    # The warm-up write and 16 more, of 16 packets each.
    expect(len({packet.number for packet in sent}) >= 17 * 16, f"{len(sent)} packets")
    flows = Counter((packet.source_port, packet.queue_pair) for packet in sent)
    expect(len(flows) == 1, f"one queue pair, but these flows: {flows}")


@SUITE.case("every collective is exact between two kernels over sockets", "4")
def _matrix(left: Machine, right: Machine) -> None:
    for text in all_well(start_ranks((left, right), 4, "vm_rank 2 8", 120, _NO_RDMA)):
        expect("right:" in text, text)


@SUITE.case("collectives over sockets are exact while packets are lost", "2")
def _loss(left: Machine, right: Machine) -> None:
    counted = with_netem(left, right, "loss 3%", _NO_RDMA)
    expect("dropped 0," not in counted, f"nothing was lost: {counted}")


@SUITE.case("collectives over sockets are exact while packets are late", "2")
def _delay(left: Machine, right: Machine) -> None:
    with_netem(left, right, "delay 5ms", _NO_RDMA)


@SUITE.case("collectives over sockets are exact while packets overtake each other", "2")
def _reorder(left: Machine, right: Machine) -> None:
    with_netem(left, right, "delay 2ms reorder 75% 50%", _NO_RDMA)
