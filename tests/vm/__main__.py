"""Runs suites in virtual machines and prints the table; what ./dev vm and ctest call."""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from pathlib import Path

from . import alone_rdma, counted, image, packages, pair_rdma, table
from .machine import MachineFailed
from .packages import Unavailable

_SUITES = {suite.name: suite for suite in (alone_rdma.SUITE, counted.SUITE, pair_rdma.SUITE)}
_PROGRAMS = ["bin/all_reduce_perf", "bin/sendrecv_perf", "bin/rdma_write_bw", "tests/vm_rank",
             "tests/vm_matrix", "tests/vm_ping_pong", "tests/hosts_rank", "tests/rdma_transport_test",
             "tests/rdma_edge_cases", "tests/libvm_qp_killer.so", "bin/comm-check"]
_SKIPPED = 77


def main(arguments: list[str]) -> int:
    """0: all passed, 1: some did not, 77: there can be no machine here."""
    parser = argparse.ArgumentParser(prog="./dev vm", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="of " + ", ".join(_SUITES))
    parser.add_argument("--build", type=Path, default=Path("build"), help="where the programs are (build)")
    parser.add_argument("--case", default="", metavar="TEXT", help="only cases with this in their title")
    options = parser.parse_args(arguments)
    unknown = set(options.suites) - set(_SUITES)
    if unknown:
        parser.error(f"no suite {', '.join(unknown)}; there are {', '.join(_SUITES)}")
    results = []
    try:
        if platform.machine() != "x86_64":
            raise Unavailable(f"the guests are x86-64 and this machine is {platform.machine()}")
        folder = options.build / "vm"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="image-", dir=folder) as name:
            booted = image.build(packages.fetch(packages.cache_folder()), options.build.resolve(),
                                 _PROGRAMS, Path(name))
            for suite in options.suites or _SUITES:
                results += _SUITES[suite].run(booted, options.case)
    except Unavailable as reason:
        print(f"vm: skipped: {reason}", flush=True)
        return _SKIPPED
    except MachineFailed as error:
        print(f"vm: {error}", file=sys.stderr)
        return 1
    print(table.write(results))
    return int(not results or any(result.complaint for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
