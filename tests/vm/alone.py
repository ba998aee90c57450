"""One machine with one Soft-RoCE device on a dummy network device."""

from __future__ import annotations

from tests.doubles.edge_cases import check

from . import figures
from .machine import Machine
from .soft_roce import DEVICE, GID, add_device, all_well, start_ranks
from .suite import Suite, expect, run


def prepare(machine: Machine) -> None:
    """The device on a dummy network device."""
    run(machine, "ip link add d0 type dummy", 10)
    add_device(machine, "d0", "10.0.0.1")


SUITE = Suite("alone", ("one",), 2, prepare)


def both(machine: Machine, program: str) -> str:
    """A server and its client; what the client says."""
    server = machine.start(program, 60)
    text = run(machine, f"for i in 1 2 3 4 5 6 7 8 9; do {program} 10.0.0.1 >/tmp/client 2>&1 && break; "
               "sleep 0.3; done; cat /tmp/client", 60)
    expect(server.wait().status == 0, f"the server of {program} failed; its client said: {text}")
    return text


@SUITE.case("the device is up with RoCE v2 and an MTU of 4096")
def _device(machine: Machine) -> None:
    text = run(machine, f"ibv_devinfo -v -d {DEVICE}", 10)
    for wanted in ("PORT_ACTIVE", "active_mtu:\t\t4096", "GID[  1]:\t\t::ffff:10.0.0.1, RoCE v2"):
        expect(wanted in text, f"no {wanted!r} in:\n{text}")


@SUITE.case("the kernel and the double of libibverbs agree on edge cases")
def _edge_cases(machine: Machine) -> None:
    said = check.complaints(run(machine, "rdma_edge_cases", 180), check.expected(soft_roce=True))
    expect(not said, "\n  ".join(said))


@SUITE.case("rdma_write_bw moves what ib_write_bw moves", "2")
def _write_bw(machine: Machine) -> str:
    perftest = figures.ib_write_bw(
        both(machine, f"ib_write_bw -d {DEVICE} -x {GID} -m 4096 -s 1048576 -n 32 -t 8 -u 18"))
    ours = figures.write_bw(run(machine, f"rdma_write_bw --device {DEVICE} --count 32", 60))
    return f"{ours / perftest:.2f}"


@SUITE.case("rdma_write_bw --ping_pong is as quick as ibv_rc_pingpong", "2")
def _ping_pong(machine: Machine) -> str:
    pingpong = figures.rc_pingpong_us(
        both(machine, f"ibv_rc_pingpong -d {DEVICE} -g {GID} -s 8 -n 500"))
    ours = figures.ping_pong_us(
        run(machine, f"rdma_write_bw --device {DEVICE} --ping_pong --count 500", 60))
    return f"{pingpong / ours:.2f}"


@SUITE.case("ranks as hosts of their own get exact results over sockets", "2 to 8")
def _matrix(machine: Machine) -> None:
    text = run(machine, "COMM_IB_DISABLE=1 COMM_WAIT=block vm_matrix", 120)
    expect("PASSED" in text, text)


@SUITE.case("all_reduce_perf in shared memory has no wrong element", "2")
def _shared(machine: Machine) -> None:
    text = run(machine, "COMM_WAIT=block all_reduce_perf --procs 2 -b 8 -e 1M -f 32 -n 5", 60)
    expect("Out of bounds values : 0 OK" in text, text)


@SUITE.case("ranks that launchers describe get exact results over sockets", "3")
def _launched(machine: Machine) -> None:
    for text in all_well(start_ranks((machine,), 3, "vm_rank 1 8", 60, "COMM_IB_DISABLE=1")):
        expect("right:" in text, text)
