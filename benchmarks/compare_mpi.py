#!/usr/bin/env python3
"""Times commAllReduce beside Open MPI's MPI_Allreduce (fp32 sum) and prints medians and ratios.

The two programs take turns, round after round, because a machine's speed drifts: only ratios from one
run count. Both measure the same sizes with the same numbers of warm-ups and iterations, out of place,
in ordinary memory, with the default settings of library and launcher, and check their results.

    benchmarks/compare_mpi.py [--ranks 2,8] [-b 8] [-e 128M] [--rounds 7] [--bin build/bin]

A ratio below 1 means that libcomm took less time. Exit status 1 when a program failed or a value was
wrong; with --most R also when a ratio exceeds R.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile


def parse_size(text):
    units = {"K": 10, "M": 20, "G": 30}
    shift = units.get(text[-1:].upper(), 0)
    return int(float(text[:-1] if shift else text) * (1 << shift))


def format_size(size):
    for unit, shift in (("G", 30), ("M", 20), ("K", 10)):
        if size >= 1 << shift and size % (1 << shift) == 0:
            return f"{size >> shift} {unit}iB"
    return f"{size} B"


def run(command):
    """The command's standard output; ends the script when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def time_ours(args, ranks):
    """Microseconds by size."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "result.json")
        command = [os.path.join(args.bin, "all_reduce_perf"), "--procs", str(ranks),
                   "-b", str(args.min_bytes), "-e", str(args.max_bytes), "-f", "2", "-J", path]
        command += args.perf_flags.split()
        if args.iters:
            command += ["-n", str(args.iters)]
        run(command)
        with open(path, encoding="utf-8") as file:
            rows = json.load(file)["results"]
    return {row["size"]: row["out_of_place"]["time"] for row in rows}


def time_mpi(args, ranks):
    """Microseconds by size."""
    command = [args.mpirun, "--oversubscribe", "-np", str(ranks)]
    if os.geteuid() == 0:
        command.insert(1, "--allow-run-as-root")
    command += args.mpirun_flags.split()
    command += [os.path.join(args.bin, "mpi_allreduce"), "-b", str(args.min_bytes),
                "-e", str(args.max_bytes)]
    if args.iters:
        command += ["-n", str(args.iters)]
    times = {}
    for line in run(command).splitlines():
        size, microseconds, _wrong = line.split()
        times[int(size)] = float(microseconds)
    return times


def compare(args, ranks):
    """Runs all rounds; returns rows of (size, ours, theirs, ratio of each round)."""
    rounds = []
    for number in range(args.rounds):
        if sys.stderr.isatty():
            print(f"\r{ranks} ranks, round {number + 1}/{args.rounds} ...", end="", file=sys.stderr)
        # Who goes first changes, so that neither always meets a warm or a cold machine.
        if number % 2 == 0:
            ours, theirs = time_ours(args, ranks), time_mpi(args, ranks)
        else:
            theirs, ours = time_mpi(args, ranks), time_ours(args, ranks)
        rounds.append((ours, theirs))
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    rows = []
    for size in sorted(set(rounds[0][0]) & set(rounds[0][1])):
        ours = [a[size] for a, _ in rounds]
        theirs = [b[size] for _, b in rounds]
        ratios = [a / b for a, b in zip(ours, theirs)]
        rows.append((size, statistics.median(ours), statistics.median(theirs), ratios))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", default="2,8", help="numbers of ranks, with commas (2,8)")
    parser.add_argument("-b", "--minbytes", default="8", help="smallest size (8)")
    parser.add_argument("-e", "--maxbytes", default="128M", help="largest size (128M)")
    parser.add_argument("-n", "--iters", type=int, default=0,
                        help="iterations per size (by size, as all_reduce_perf does)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of both programs (7)")
    parser.add_argument("--bin", default=os.path.join(os.path.dirname(__file__), "../build/bin"),
                        help="folder of all_reduce_perf and mpi_allreduce")
    parser.add_argument("--mpirun", default=shutil.which("mpirun.openmpi") or "mpirun")
    parser.add_argument("--mpirun-flags", default="", help="more flags for mpirun")
    parser.add_argument("--perf-flags", default="", help="more flags for all_reduce_perf")
    parser.add_argument("--most", type=float, help="fail when a median ratio is above this")
    args = parser.parse_args()
    args.min_bytes, args.max_bytes = parse_size(args.minbytes), parse_size(args.maxbytes)

    worst = 0.0
    for ranks in (int(text) for text in args.ranks.split(",")):
        print(f"# fp32 sum all-reduce, {ranks} ranks, medians of {args.rounds} interleaved rounds")
        print(f"# {'size':>9}  {'libcomm':>11}  {'Open MPI':>11}  {'ratio':>6}  ratios of the rounds")
        for size, ours, theirs, ratios in compare(args, ranks):
            ratio = statistics.median(ratios)
            worst = max(worst, ratio)
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            print(f"  {format_size(size):>9}  {ours:8.2f} us  {theirs:8.2f} us  {ratio:6.2f}  {spread}",
                  flush=True)
    if args.most is not None and worst > args.most:
        sys.exit(f"the worst ratio is {worst:.2f}, above --most {args.most}")


if __name__ == "__main__":
    main()
