"""Who takes part: a library with one setting, on one transport.

Peers run with their defaults and, as a second line, with the best documented setting that
measuring has found for them; `setting` says which.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = "{folder}"
"""In arguments and environments: a private folder of the start."""

BFLOAT16_SIZES = (1 << 20, 16 << 20)
"""Least and most bytes of the all-reduce of bfloat16 beside float."""


@dataclass(frozen=True)
class Contender:
    """One line of a table and a chart."""

    key: str
    library: str
    """libcomm, openmpi, mpich or gloo; its driver is LIBRARY_driver."""
    title: str
    setting: str
    is_default: bool = True
    """A peer's defaults: what ratios are taken to."""
    flags: tuple[str, ...] = ()
    """Of the driver."""
    launcher_flags: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict, hash=False)
    only: tuple[str, ...] = ()
    """Collectives; all when empty."""
    sizes: tuple[int, int] = (0, 1 << 62)

    @property
    def is_peer(self) -> bool:
        """Not ours."""
        return self.library != "libcomm"


def command(contender: Contender, programs: Path, ranks: int, cores: int,
            arguments: list[str]) -> list[str]:
    """The command line of one start."""
    driver = str(programs / f"{contender.library}_driver")
    arguments = [*arguments, *contender.flags]
    if contender.library == "openmpi":
        # The documented way to have more ranks than cores; ranks then yield while they wait.
        more = ["--oversubscribe"] if ranks > cores else []
        return ["mpirun.openmpi", *more, "-np", str(ranks), *contender.launcher_flags, driver,
                *arguments]
    if contender.library == "mpich":
        return ["mpiexec.mpich", "-np", str(ranks), *contender.launcher_flags, driver, *arguments]
    return [driver, "--ranks", str(ranks), *arguments]


def environment(contender: Contender) -> dict[str, str]:
    """What a start needs beside the caller's environment."""
    extra = dict(contender.environment)
    if contender.library == "openmpi":
        # Where it keeps its segments has no influence on speed, but lets us clean up after a kill.
        extra["OMPI_MCA_btl_vader_backing_directory"] = "{shm}"
        if os.geteuid() == 0:
            extra |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    if contender.library in ("openmpi", "mpich"):
        extra["UCX_POSIX_DIR"] = "{shm}"
    return extra


_UCX = ("--mca", "pml", "ucx", "--mca", "opal_common_ucx_tls", "any",
        "--mca", "opal_common_ucx_devices", "any")
_RELEASE_GATHER = {f"MPIR_CVAR_{name}_POSIX_INTRA_ALGORITHM": "release_gather"
                   for name in ("BCAST", "REDUCE", "ALLREDUCE")}
_OPENMPI_TCP = ("--mca", "btl", "tcp,self")
_MPICH_TCP = {"MPIR_CVAR_NOLOCAL": "1", "UCX_TLS": "tcp,self"}
_GLOO_STORE = ("--store", FOLDER)
_COLLECTIVES_OF_GLOO_BEST = ("allreduce",)

_GLOO = Contender("gloo", "gloo", "Gloo", "defaults: ring, TCP on 127.0.0.1", flags=_GLOO_STORE)

SHM = (
    Contender("libcomm", "libcomm", "libcomm", "defaults, memory from malloc"),
    Contender("libcomm-mem", "libcomm", "libcomm, commMemAlloc",
              "defaults, memory from commMemAlloc", flags=("--memory", "comm")),
    Contender("libcomm-bf16", "libcomm", "libcomm, bfloat16",
              "defaults, memory from malloc, bfloat16 of the same bytes",
              flags=("--type", "bfloat16"), only=("allreduce",), sizes=BFLOAT16_SIZES),
    Contender("openmpi", "openmpi", "Open MPI", "defaults"),
    Contender("openmpi-best", "openmpi", "Open MPI, best", " ".join(_UCX), is_default=False,
              launcher_flags=_UCX),
    Contender("mpich", "mpich", "MPICH", "defaults"),
    Contender("mpich-best", "mpich", "MPICH, best",
              " ".join(f"{name}={value}" for name, value in _RELEASE_GATHER.items()),
              is_default=False, environment=_RELEASE_GATHER),
    _GLOO,
)

TCP = (
    Contender("libcomm", "libcomm", "libcomm", "COMM_SHM_DISABLE=1, memory from malloc",
              environment={"COMM_SHM_DISABLE": "1"}),
    Contender("openmpi", "openmpi", "Open MPI", " ".join(_OPENMPI_TCP),
              launcher_flags=_OPENMPI_TCP),
    Contender("openmpi-best", "openmpi", "Open MPI, best",
              " ".join((*_OPENMPI_TCP, "--mca", "btl_tcp_if_include", "lo")), is_default=False,
              launcher_flags=(*_OPENMPI_TCP, "--mca", "btl_tcp_if_include", "lo")),
    Contender("mpich", "mpich", "MPICH",
              " ".join(f"{name}={value}" for name, value in _MPICH_TCP.items()),
              environment=_MPICH_TCP),
    Contender("mpich-best", "mpich", "MPICH, best",
              " ".join(f"{name}={value}" for name, value in _MPICH_TCP.items())
              + " UCX_NET_DEVICES=lo",
              is_default=False, environment=_MPICH_TCP | {"UCX_NET_DEVICES": "lo"}),
    _GLOO,
    Contender("gloo-best", "gloo", "Gloo, best", "AllreduceHalvingDoubling", is_default=False,
              flags=(*_GLOO_STORE, "--algorithm", "halving_doubling"),
              only=_COLLECTIVES_OF_GLOO_BEST),
)

TRANSPORTS = {"shm": SHM, "tcp": TCP}
PEERS = ("openmpi", "mpich", "gloo")


def contenders(transport: str, collective: str, peers: tuple[str, ...],
               with_best: bool) -> list[Contender]:
    """Those that take part in a case, ours first."""
    return [one for one in TRANSPORTS[transport]
            if (not one.is_peer or one.library in peers)
            and (one.is_default or with_best)
            and (not one.only or collective in one.only)]
