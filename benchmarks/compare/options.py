"""The command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import cases
from .cases import Case, Effort
from .contenders import PEERS, TRANSPORTS
from .sizes import parse_size, sizes_between

_MOST_RANKS = 16  # benchmarks/peers/values.h


@dataclass(frozen=True)
class Options:
    """What to measure and where to put it."""

    cases: list[Case]
    sizes: list[int]
    peers: tuple[str, ...]
    with_best: bool
    rounds: int
    effort: Effort
    limit_s: float
    programs: Path
    output: Path
    strict: bool


def parse(arguments: list[str]) -> Options:
    """Ends the program when they make no sense."""
    parser = _parser()
    args = parser.parse_args(arguments)
    quick: bool = args.quick
    least, most = args.min or 8, args.max or ((16 if quick else 128) << 20)
    sizes = sizes_between(least, most, args.factor or (8 if quick else 2))
    if not sizes:
        parser.error(f"--min {least} is above --max {most}")
    return Options(
        cases=_cases(args), sizes=sizes, peers=args.peers, with_best=not (quick or args.no_best),
        rounds=args.rounds or (3 if quick else 5),
        effort=Effort(10_000, 3) if quick else Effort(40_000, 3),
        limit_s=args.limit or (30 if quick else 120), programs=args.programs, output=args.output,
        strict=args.strict)


def _cases(args: argparse.Namespace) -> list[Case]:
    chosen = args.collectives or args.transports or args.ranks
    if not chosen and not args.quick:
        return cases.cases_of_the_number_table()
    few = ["allreduce", "allgather", "broadcast"]
    collectives = args.collectives or (few if args.quick else list(cases.COLLECTIVES))
    return cases.cross(collectives, args.transports or list(TRANSPORTS), args.ranks or [2])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./dev compare",
        description="Runs libcomm, Open MPI, MPICH and Gloo side by side, checks their results, "
        "and writes table.md, results.csv and charts. Without --collectives, --transports and "
        "--ranks: the cases that a bar is set for.")
    add = parser.add_argument
    add("--collectives", type=_names(cases.COLLECTIVES), metavar="NAME,...",
        help="of " + ", ".join(cases.COLLECTIVES))
    add("--transports", type=_names(tuple(TRANSPORTS)), metavar="NAME,...", help="of shm, tcp")
    add("--ranks", type=_ranks, metavar="N,...", help="numbers of ranks (2)")
    add("--min", type=_size, metavar="BYTES", help="smallest size (8)")
    add("--max", type=_size, metavar="BYTES", help="largest size (128M; 16M with --quick)")
    add("--factor", type=_number(2), help="between sizes (2; 8 with --quick)")
    add("--rounds", type=_number(1), help="(5; 3 with --quick)")
    add("--peers", type=_peers, default=PEERS, metavar="NAME,...",
        help="of openmpi, mpich, gloo; or none")
    add("--quick", action="store_true",
        help="a first impression in about two minutes: fewer collectives, sizes and rounds, peers' "
        "defaults alone")
    add("--no-best", action="store_true", help="peers' defaults alone")
    add("--limit", type=_number(1), metavar="SECONDS",
        help="how long one start may take (120; 30 with --quick)")
    add("--strict", action="store_true", help="exit status 1 when a bar that ran is not met")
    add("--output", type=Path, default=Path("build/compare"), metavar="FOLDER",
        help="(build/compare)")
    add("--programs", type=Path, default=Path("build/peers"), metavar="FOLDER",
        help="where the drivers are (build/peers)")
    return parser


def _split(text: str) -> list[str]:
    return [part for part in (part.strip() for part in text.split(",")) if part]


def _names(known: tuple[str, ...]) -> Callable[[str], list[str]]:
    def convert(text: str) -> list[str]:
        names = list(dict.fromkeys(_split(text)))
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"no {name!r}; there are {', '.join(known)}")
        if not names:
            raise argparse.ArgumentTypeError("names nothing")
        return names
    return convert


def _peers(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(_names(PEERS)(text))


def _ranks(text: str) -> list[int]:
    ranks = []
    for part in _split(text):
        if not part.isdigit() or not 2 <= int(part) <= _MOST_RANKS:
            raise argparse.ArgumentTypeError(f"from 2 to {_MOST_RANKS}, not {part!r}")
        ranks.append(int(part))
    if not ranks:
        raise argparse.ArgumentTypeError("names nothing")
    return list(dict.fromkeys(ranks))


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not a size such as 8, 32K, 128M: {text!r}") from error


def _number(least: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"a number from {least}, not {text!r}")
        return int(text)
    return convert
