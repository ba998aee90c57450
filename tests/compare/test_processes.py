"""A driver that fails, hangs or forks: said, and nothing stays behind."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from benchmarks.compare.processes import Runner

ROOT = Path(__file__).resolve().parents[2]


def shell(text: str) -> list[str]:
    return ["sh", "-c", text]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


class RunnerTest(unittest.TestCase):
    def setUp(self):
        self.runner = Runner()
        self.addCleanup(self.runner.clean)

    def test_collects_output_and_status(self):
        finished = self.runner.run(shell("echo out; echo err >&2; exit 3"), {}, 30)
        self.assertEqual((finished.out, finished.err, finished.status), ("out\n", "err\n", 3))
        self.assertFalse(finished.ok)
        self.assertEqual(finished.complaint(30), "exit status 3")
        self.assertTrue(self.runner.run(["true"], {}, 30).ok)

    def test_a_signal_is_named(self):
        finished = self.runner.run(shell("kill -SEGV $$"), {}, 30)
        self.assertEqual(finished.complaint(30), "ended by signal 11 (SIGSEGV)")

    def test_a_program_that_is_not_there_is_a_failure(self):
        finished = self.runner.run(["/no/such/program"], {}, 30)
        self.assertEqual(finished.status, 127)
        self.assertIn("/no/such/program", finished.err)

    def test_output_before_a_hang_is_kept(self):
        finished = self.runner.run(shell("echo early; exec sleep 600"), {}, 5)
        self.assertTrue(finished.timed_out)
        self.assertEqual(finished.out, "early\n")
        self.assertEqual(finished.complaint(5), "did not end within 5 s")

    def test_ranks_in_sessions_of_their_own_are_ended_too(self):
        # Deaf to SIGTERM, and no longer a child of the driver.
        text = "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$; sleep 600; sleep 600' & wait"
        finished = self.runner.run(shell(text), {}, 5)
        self.assertTrue(finished.timed_out)
        pid = int(finished.out)
        self.assertTrue(wait_until(lambda: not alive(pid)))

    def test_what_a_driver_leaves_in_the_background_is_ended(self):
        text = "setsid sleep 600 >/dev/null 2>&1 & echo $!"
        pid = int(self.runner.run(shell(text), {}, 30).out)
        self.assertTrue(wait_until(lambda: not alive(pid)))

    def test_private_folders_exist_during_the_start_and_not_after(self):
        text = 'touch "$TMPDIR/a" "$0/b" "$SHM/c" && echo "$TMPDIR" "$0" "$SHM"'
        finished = self.runner.run(["sh", "-c", text, "{folder}"], {"SHM": "{shm}"}, 30)
        self.assertTrue(finished.ok, finished.err)
        folders = finished.out.split()
        self.assertEqual(len(folders), 3)
        self.assertEqual([folder for folder in folders if os.path.exists(folder)], [])

    def test_folders_of_a_killed_comparison_go_with_the_next_one(self):
        dead = subprocess.Popen(["true"])
        dead.wait()
        shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()
        stale = Path(shared) / f"libcomm-compare-{dead.pid}-test"
        living = Path(shared) / f"libcomm-compare-{os.getpid()}-test"
        for path in (stale, living):
            path.mkdir()
            self.addCleanup(shutil.rmtree, path, ignore_errors=True)
        Runner().clean()
        self.assertEqual((stale.exists(), living.exists()), (False, True))

    def test_a_killed_comparison_takes_its_driver_with_it(self):
        with tempfile.TemporaryDirectory() as folder:
            note = Path(folder) / "pid"
            code = ("from benchmarks.compare.processes import Runner\n"
                    f"Runner().run(['sh', '-c', 'echo $$ >{note}; exec sleep 600'], {{}}, 600)\n")
            parent = subprocess.Popen([sys.executable, "-B", "-c", code], cwd=ROOT,
                                      env=os.environ | {"TMPDIR": folder})
            self.assertTrue(wait_until(lambda: note.exists() and note.read_text().strip() != ""))
            pid = int(note.read_text())
            parent.send_signal(signal.SIGKILL)
            parent.wait()
            self.assertTrue(wait_until(lambda: not alive(pid)))


if __name__ == "__main__":
    unittest.main()
