"""The real drivers: libcomm, and Open MPI where it is installed. Results, not times.

COMM_PEERS_DIR is where the drivers are.
"""

import csv
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(os.environ.get("COMM_PEERS_DIR", ROOT / "build/peers"))
HAS_OPENMPI = bool((PROGRAMS / "openmpi_driver").exists() and shutil.which("mpirun.openmpi"))
COLLECTIVES = "allreduce,allgather,reducescatter,broadcast,reduce,alltoall,gather,scatter,sendrecv"


def marked_processes(folder: str) -> list[str]:
    """Those that were started with this TMPDIR or below it."""
    found = []
    for entry in os.scandir("/proc"):
        try:
            with open(f"/proc/{entry.name}/environ", "rb") as file:
                if entry.name.isdigit() and f"TMPDIR={folder}".encode() in file.read():
                    found.append(entry.name)
        except OSError:
            continue
    return found


class RealRunTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(dir="/tmp")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.output = Path(folder.name) / "out"
        (Path(folder.name) / "tmp").mkdir()

    def left_in_shared_memory(self, process: subprocess.Popen) -> list[str]:
        return [name for name in os.listdir("/dev/shm")
                if name.startswith(f"libcomm-compare-{process.pid}-")]

    def start(self, *arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-B", "-m", "benchmarks.compare", "--programs", str(PROGRAMS),
             "--output", str(self.output), *arguments], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env=os.environ | {"TMPDIR": f"{self.folder}/tmp"})

    def run_to_end(self, *arguments: str) -> str:
        process = self.start(*arguments)
        text, _ = process.communicate(timeout=280)
        self.assertEqual(process.returncode, 0, text)
        return text

    def rows(self) -> list[dict[str, str]]:
        with open(self.output / "results.csv", encoding="utf-8", newline="") as file:
            return [row for row in csv.DictReader(file) if row["transport"] != "limit"]

    def test_every_collective_on_two_sizes(self):
        peers = "openmpi" if HAS_OPENMPI else "none"
        text = self.run_to_end("--quick", "--collectives", COLLECTIVES, "--transports", "shm",
                               "--min", "8", "--max", "4K", "--factor", "512", "--rounds", "1",
                               "--peers", peers)
        rows = self.rows()
        self.assertEqual({row["wrong"] for row in rows}, {"0"}, text)
        wanted = {"libcomm", "libcomm-mem"} | ({"openmpi"} if HAS_OPENMPI else set())
        for collective in COLLECTIVES.split(","):
            got = {(row["contender"], row["size"])
                   for row in rows if row["collective"] == collective}
            self.assertEqual(got, {(who, size) for who in wanted for size in ("8", "4096")}, text)
            for kind in ("time", "busbw"):
                ElementTree.parse(self.output / f"{collective}-shm-2-{kind}.svg")
        table = (self.output / "table.md").read_text(encoding="utf-8")
        self.assertEqual("not run" not in table.split("all-reduce, 8 B")[1].split("\n")[0],
                         HAS_OPENMPI)
        self.assertNotIn("round 1:", table)  # of a failure

    def test_tcp_three_ranks_and_a_size_that_does_not_divide(self):
        text = self.run_to_end("--quick", "--collectives", "allreduce,alltoall", "--ranks", "3",
                               "--transports", "tcp", "--min", "8", "--max", "1000", "--factor",
                               "125", "--rounds", "1", "--peers", "none")
        self.assertEqual([(row["contender"], row["bytes"], row["wrong"]) for row in self.rows()],
                         [("libcomm", "8", "0"), ("libcomm", "1000", "0"), ("libcomm", "12", "0"),
                          ("libcomm", "996", "0")], text)

    def test_an_interrupted_run_writes_what_it_has_and_leaves_nothing_behind(self):
        process = self.start("--collectives", "allreduce", "--transports", "shm", "--min", "8",
                             "--max", "8", "--rounds", "100000", "--peers",
                             "openmpi" if HAS_OPENMPI else "none", "--no-best")
        # Drivers have folders of their own below the one of the comparison.
        while process.poll() is None and not marked_processes(f"{self.folder}/tmp/"):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        text, _ = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 130, text)
        self.assertIn("interrupted", (self.output / "table.md").read_text(encoding="utf-8"))
        self.assertEqual(marked_processes(f"{self.folder}/tmp"), [])
        self.assertEqual(os.listdir(f"{self.folder}/tmp"), [])
        self.assertEqual(self.left_in_shared_memory(process), [])


if __name__ == "__main__":
    unittest.main()
