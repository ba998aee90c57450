"""Soft-RoCE devices in guests, and ranks that use them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .machine import BUSY, Job, Machine
from .suite import CaseFailed, expect, run

DEVICE = "rxe0"
GID = 1
"""The RoCE v2 one of the device's IPv4 address."""
SENT_PACKETS = f"/sys/class/infiniband/{DEVICE}/ports/1/hw_counters/sent_pkts"
_MTU = 4200
"""Of the network device, so that RDMA packets carry 4096 bytes."""
_MEETING_PORT = 7777


def add_device(machine: Machine, network_device: str, address: str) -> None:
    """Makes the RDMA device on a network device, which gets the address."""
    run(machine, f"ip link set {network_device} mtu {_MTU} up && "
        f"ip addr add {address}/24 dev {network_device} && "
        f"rdma link add {DEVICE} type rxe netdev {network_device}", 30)


@contextmanager
def over_rdma(*machines: Machine, packets: int) -> Iterator[None]:
    """What is done inside must make each device send at least so many packets."""
    before = [packets_sent(machine) for machine in machines]
    yield
    for machine, first in zip(machines, before, strict=True):
        sent = packets_sent(machine) - first
        expect(sent >= packets, f"only {sent} RDMA packets left {machine.name}")


def packets_sent(machine: Machine) -> int:
    """By its device, ever."""
    return int(run(machine, f"cat {SENT_PACKETS}", 10))


def start_ranks(machines: tuple[Machine, ...], nranks: int, command: str, limit_s: int,
                variables: str = "") -> list[tuple[Machine, Job]]:
    """Rank r on machine r modulo their number, every rank a host of its own; they meet on the first."""
    started = []
    for rank in range(nranks):
        machine = machines[rank % len(machines)]
        # COMM_WAIT: an emulated CPU that spins takes the time of the one it waits for.
        started.append((machine, machine.start(
            f"COMM_RANK={rank} COMM_NRANKS={nranks} COMM_ID=10.0.0.1:{_MEETING_PORT} COMM_SECRET=vm "
            f"COMM_HOSTID=host{rank} COMM_WAIT=block COMM_TIMEOUT={limit_s * BUSY} "
            f"COMM_BOOTSTRAP_TIMEOUT={60 * BUSY} {variables} {command}", limit_s)))
    return started


def all_well(started: list[tuple[Machine, Job]]) -> list[str]:
    """What each rank said; fails when one did not end well."""
    ends = [(machine, job.wait()) for machine, job in started]
    bad = [f"rank {rank} on {machine.name} gave {end.status}: {end.text.strip()}"
           for rank, (machine, end) in enumerate(ends) if end.status != 0]
    if bad:
        raise CaseFailed("\n  ".join(bad))
    return [end.text for _, end in ends]
