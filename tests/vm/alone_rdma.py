"""The RDMA transport on one device of one machine, ranks being hosts of their own."""

from __future__ import annotations

from . import figures
from .alone import SUITE, both
from .machine import Machine
from .progress import Progress, longest_stall
from .soft_roce import DEVICE, GID, all_well, over_rdma, start_ranks
from .suite import expect, run

_MIB = 1 << 20
_ROUNDS = 3
"""Of a measurement, what it is held beside taking turns with it. The best of each counts: whatever else the
machine below does makes both slower."""


@SUITE.case("the transport's conformance suite passes on the kernel's device", "2")
def _conformance(machine: Machine) -> None:
    text = run(machine, "rdma_transport_test --gtest_brief=1 "
               "--gtest_filter='*/split_over_three'", 150)
    expect("[  PASSED  ]" in text, text)


@SUITE.case("collectives between hosts of one rank are exact", "2 to 8")
def _matrix(machine: Machine) -> None:
    with over_rdma(machine, packets=5000):
        text = run(machine, "COMM_WAIT=block vm_matrix", 180)
    expect("[  PASSED  ]" in text, text)


@SUITE.case("several queue pairs carry whole segments in turn, or parts of each", "3")
def _queue_pairs(machine: Machine) -> None:
    for split in (0, 1):
        with over_rdma(machine, packets=100):
            for text in all_well(start_ranks((machine,), 3, "vm_rank 4 16", 120,
                                             f"COMM_IB_QPS_PER_CONNECTION=4 "
                                             f"COMM_IB_SPLIT_DATA_ON_QPS={split}")):
                expect("right:" in text, text)


@SUITE.case("comm-check rdma lists the device and measures every pair", "3")
def _check(machine: Machine) -> None:
    with over_rdma(machine, packets=1000):
        text = run(machine, "comm-check rdma --ranks 3 --count 4 --bytes 256K", 60)
    for expected in ("/dev/infiniband/uverbs0: may be used", "rxe0:1 (Ethernet, RoCE v2 10.0.0.1, MTU 4096",
                     "on d0", "RDMA works between all ranks"):
        expect(expected in text, text)


@SUITE.case("comm-check rdma names a user who may not use the device", "2")
def _permission(machine: Machine) -> None:
    run(machine, "grep -q nobody /etc/passwd || echo nobody:x:65534:65534::/tmp:/bin/sh >>/etc/passwd", 10)
    finished = machine.run("chmod 600 /dev/infiniband/uverbs0; su nobody -c 'comm-check rdma'; status=$?; "
                           "chmod 666 /dev/infiniband/uverbs0; exit $status", 60)
    expect(finished.status == 1, finished.text)
    expect("no permission on /dev/infiniband" in finished.text, finished.text)


@SUITE.case("sendrecv_perf --one_way moves what RDMA writes move (bar: 0.90)", "2")
def _one_way(machine: Machine) -> str:
    write = f"rdma_write_bw --device {DEVICE} --size {4 * _MIB} --count 12 --window 8"
    raw, ours = [], []
    for _ in range(_ROUNDS):
        raw.append(figures.write_bw(run(machine, write, 90)))
        with over_rdma(machine, packets=12000):
            said = all_well(start_ranks(
                (machine,), 2, "sendrecv_perf --one_way -R 1 -b 4M -e 4M -n 12 -w 1 -c 0", 120,
                "COMM_WAIT=adaptive"))
        ours.append(4 * _MIB / figures.perf_us(said[0]))
    return f"{max(ours) / max(raw):.2f}"


@SUITE.case("eight bytes to and fro beside ibv_rc_pingpong (time; bar: 1.50)", "2")
def _latency(machine: Machine) -> str:
    pingpong = f"ibv_rc_pingpong -d {DEVICE} -g {GID} -s 8 -n 500"
    raw, ours = [], []
    for _ in range(_ROUNDS):
        raw.append(figures.rc_pingpong_us(both(machine, pingpong)))
        with over_rdma(machine, packets=500):
            said = all_well(start_ranks((machine,), 2, "vm_ping_pong 500", 120, "COMM_WAIT=spin"))
        ours.append(figures.ping_pong_us(said[0]))
    return f"{min(ours) / min(raw):.2f}"


@SUITE.case("a queue pair that breaks in a 64 MiB all-reduce is replaced (longest stall; bar: 1 s)", "2")
def _fail_over(machine: Machine) -> str:
    run(machine, "rm -f /tmp/kill*", 10)
    progress = Progress(machine)
    started = start_ranks((machine,), 2, f"hosts_rank allreduce {16 * _MIB} 1", 240,
                          "LD_PRELOAD=/usr/bin/libvm_qp_killer.so COMM_IB_QPS_PER_CONNECTION=2")
    progress.wait_for(8000, 120)
    since = progress.seconds()
    run(machine, "echo 0 >/tmp/kill && mv /tmp/kill /tmp/kill-qp-0", 10)
    said = all_well(started)
    samples = progress.end()
    expect("killed: 0" in said[0], f"no queue pair was killed: {said[0]}")
    for text in said:
        expect(text.rstrip().endswith("right"), text)
    left = samples[-1][1] - max(sent for now, sent in samples if now <= since)
    expect(left > 4000, f"only {left} packets were still to be sent: the kill came too late")
    return f"{longest_stall(samples, since):.2f} s"
