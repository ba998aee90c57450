"""The RDMA transport between two kernels: what crosses the cable, and what happens when it misbehaves."""

from __future__ import annotations

from collections import Counter

from . import roce
from .machine import Machine
from .pair import SUITE, Capture, with_netem
from .soft_roce import all_well, over_rdma, start_ranks
from .suite import expect

_IMPATIENT = "COMM_IB_TIMEOUT=14"
"""67 ms until a packet is sent again, for cables that lose some; the default is for fabrics that do not: 4 s."""


@SUITE.case("every collective is exact between two kernels over RDMA", "2, 4")
def _matrix(left: Machine, right: Machine) -> None:
    for nranks in (2, 4):
        with over_rdma(left, right, packets=50):
            for text in all_well(start_ranks((left, right), nranks, f"vm_rank {nranks} 8", 150)):
                expect("right:" in text, text)


def _captured(left: Machine, right: Machine, variables: str) -> list[roce.Packet]:
    """What crossed from left to right during an all-reduce of 4 MiB."""
    capture = Capture(left)
    said = all_well(start_ranks((left, right), 2, "hosts_rank allreduce 1048576 1", 120, variables))
    for text in said:
        expect(text.rstrip().endswith("right"), text)
    return [packet for packet in roce.packets(capture.end()) if packet.source == "10.0.0.1"]


def _flows(packets: list[roce.Packet]) -> Counter[tuple[int, int]]:
    """Packets that carried writes, by UDP source port and the other side's queue pair; acknowledgements are
    few and of every queue pair."""
    writes = Counter((packet.source_port, packet.queue_pair) for packet in packets if packet.is_write)
    return Counter({flow: count for flow, count in writes.items() if count >= 50})


@SUITE.case("one queue pair is one flow of UDP to port 4791", "2")
def _one_flow(left: Machine, right: Machine) -> None:
    flows = _flows(_captured(left, right, ""))
    expect(len(flows) == 1, f"flows: {flows}")


@SUITE.case("four queue pairs are four flows that share the bytes", "2")
def _four_flows(left: Machine, right: Machine) -> None:
    flows = _flows(_captured(left, right, "COMM_IB_QPS_PER_CONNECTION=4"))
    expect(len(flows) == 4 and len({port for port, _ in flows}) == 4, f"flows: {flows}")
    expect(max(flows.values()) < 2 * min(flows.values()), f"unequal flows: {flows}")


@SUITE.case("collectives over RDMA are exact while packets are lost", "2")
def _loss(left: Machine, right: Machine) -> None:
    with over_rdma(left, right, packets=150):
        counted = with_netem(left, right, "loss 2%", _IMPATIENT)
    expect("dropped 0," not in counted, f"nothing was lost: {counted}")


@SUITE.case("collectives over RDMA are exact while packets are late", "2")
def _delay(left: Machine, right: Machine) -> None:
    with over_rdma(left, right, packets=150):
        with_netem(left, right, "delay 5ms", "")


@SUITE.case("collectives over RDMA are exact while packets overtake each other", "2")
def _reorder(left: Machine, right: Machine) -> None:
    with over_rdma(left, right, packets=150):
        with_netem(left, right, "delay 1ms reorder 90% 50%", _IMPATIENT)
