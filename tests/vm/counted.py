"""The figures beside perftest's in instructions: one CPU whose clock counts them, so that runs give the
same within a few hundredths. Who waits sleeps, in their programs and in ours, since all share the CPU."""

from __future__ import annotations

from . import figures
from .alone import both, prepare
from .machine import Machine
from .soft_roce import DEVICE, GID, all_well, over_rdma, start_ranks
from .suite import Suite, expect, run

_MIB = 1 << 20

SUITE = Suite("counted", ("one",), 1, prepare, counted=True)


@SUITE.case("sendrecv_perf --one_way takes little more than RDMA writes take (rate; bar: 0.90)", "2")
def _one_way(machine: Machine) -> str:
    raw = figures.write_bw(
        run(machine, f"rdma_write_bw --device {DEVICE} --size {4 * _MIB} --count 12 --window 8", 90))
    with over_rdma(machine, packets=12000):
        said = all_well(start_ranks(
            (machine,), 2, "sendrecv_perf --one_way -R 1 -b 4M -e 4M -n 12 -w 1 -c 0", 120))
    ratio = 4 * _MIB / figures.perf_us(said[0]) / raw
    expect(ratio >= 0.90, f"only {ratio:.2f} of the rate of RDMA writes")
    return f"{ratio:.2f}"


@SUITE.case("eight bytes to and fro beside ibv_rc_pingpong -e (time; bar: 1.50)", "2")
def _latency(machine: Machine) -> str:
    raw = figures.rc_pingpong_us(both(machine, f"ibv_rc_pingpong -e -d {DEVICE} -g {GID} -s 8 -n 500"))
    with over_rdma(machine, packets=500):
        said = all_well(start_ranks((machine,), 2, "vm_ping_pong 500", 120))
    ratio = figures.ping_pong_us(said[0]) / raw
    expect(ratio <= 1.50, f"{ratio:.2f} of ibv_rc_pingpong's time")
    return f"{ratio:.2f}"
