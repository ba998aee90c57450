"""Rounds with drivers that are shell scripts: order, failures, interruption."""

import contextlib
import io
import tempfile
import unittest
from pathlib import Path

from benchmarks.compare import options
from benchmarks.compare.cases import (COLLECTIVES, Effort, Start, bus_factor,
                                      cases_of_the_number_table, estimate_seconds)
from benchmarks.compare.contenders import command, contenders
from benchmarks.compare.processes import Runner
from benchmarks.compare.progress import Progress
from benchmarks.compare.session import Session
from tests.compare.samples import SHM2, TCP2, contender

GOOD = "echo '@row allreduce float 8 8 10 1.5 0'; echo '@row allreduce float 64 64 10 2.5 0'"


class SessionTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def driver(self, name: str, body: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\necho {name} >>{self.folder}/log\n{body}\n")
        path.chmod(0o755)

    def session(self, *more: str) -> Session:
        arguments = ["--collectives", "allreduce", "--transports", "tcp", "--min", "8",
                     "--max", "64", "--factor", "8", "--peers", "gloo", "--no-best",
                     "--rounds", "3", "--programs", str(self.folder), *more]
        runner = Runner()
        self.addCleanup(runner.clean)
        return Session(options.parse(arguments), runner)

    def run_all(self, session: Session) -> str:
        file = io.StringIO()
        session.run(Progress(1.0, file))
        return file.getvalue()

    def log(self) -> list[str]:
        return [line for line in (self.folder / "log").read_text().split() if line != "limits"]

    def test_contenders_take_turns_and_another_begins_in_every_round(self):
        self.driver("libcomm_driver", GOOD)
        self.driver("gloo_driver", GOOD)
        session = self.session()
        self.run_all(session)
        ours, gloo = "libcomm_driver", "gloo_driver"
        self.assertEqual(self.log(), [ours, gloo, gloo, ours, ours, gloo])
        self.assertEqual(dict(session.results.times(TCP2, "gloo", 64)), {1: 2.5, 2: 2.5, 3: 2.5})
        self.assertEqual(session.results.failures, [])

    def test_a_failing_driver_is_told_and_given_up_and_the_others_go_on(self):
        self.driver("libcomm_driver", GOOD)
        self.driver("gloo_driver", "echo '@row allreduce float 8 8 10 1.5 0'; echo why >&2\nexit 1")
        session = self.session()
        said = self.run_all(session)
        self.assertIn("Gloo exit status 1: why", said)
        self.assertEqual(self.log().count("gloo_driver"), 2)
        self.assertEqual(self.log().count("libcomm_driver"), 3)
        self.assertEqual([failure.last_line for failure in session.results.failures],
                         ["why", "why"])
        self.assertEqual(len(session.results.times(TCP2, "gloo", 8)), 2)

    def test_a_hanging_driver_is_told(self):
        self.driver("libcomm_driver", GOOD)
        self.driver("gloo_driver", "echo stuck; sleep 600")
        session = self.session("--limit", "5", "--rounds", "1")
        self.run_all(session)
        failure, = session.results.failures
        self.assertEqual((failure.complaint, failure.last_line),
                         ("did not end within 5 s", "stuck"))

    def test_sizes_that_a_driver_left_out_are_a_failure(self):
        self.driver("libcomm_driver", "echo '@row allreduce float 8 8 10 1.5 0'")
        session = self.session("--peers", "none", "--rounds", "1")
        self.run_all(session)
        failure, = session.results.failures
        self.assertEqual(failure.complaint, "left out 1 sizes")

    def test_wrong_values_are_told_with_their_sizes(self):
        self.driver("libcomm_driver", GOOD)
        self.driver("gloo_driver", GOOD.replace("2.5 0", "2.5 7") + "; exit 1")
        session = self.session("--rounds", "1")
        self.run_all(session)
        failure, = session.results.failures
        self.assertEqual(failure.complaint, "gave wrong results at 64 B")
        self.assertIsNone(session.results.ratio(TCP2, 64))

    def test_a_note_of_a_driver_is_told_once_and_is_no_failure(self):
        self.driver("libcomm_driver", GOOD)
        self.driver("gloo_driver", GOOD + "; echo @note slow to leave")
        session = self.session()
        self.run_all(session)
        self.assertEqual(session.results.failures, [])
        notes = [note for note in session.results.notes if "slow" in note]
        self.assertEqual(notes, ["allreduce, tcp, 2 ranks: Gloo: slow to leave"])

    def test_a_peer_may_stumble_on_its_way_out_and_we_may_not(self):
        self.driver("libcomm_driver", GOOD + "; exit 9")
        self.driver("gloo_driver", GOOD + "; exit 9")
        session = self.session()
        self.run_all(session)
        self.assertEqual({failure.contender for failure in session.results.failures}, {"libcomm"})
        self.assertIn("allreduce, tcp, 2 ranks: Gloo: after its last row: exit status 9",
                      session.results.notes)
        self.assertEqual(len(session.results.times(TCP2, "gloo", 64)), 3)

    def test_a_skipped_collective_is_no_failure(self):
        self.driver("libcomm_driver", GOOD)
        self.driver("gloo_driver", "echo '@skip allreduce cannot'")
        session = self.session("--rounds", "1")
        self.run_all(session)
        self.assertEqual(session.results.failures, [])
        self.assertEqual(session.results.skips, {(TCP2, "gloo"): "cannot"})

    def test_a_driver_that_was_not_built_is_a_note(self):
        self.driver("libcomm_driver", GOOD)
        session = self.session("--rounds", "1")
        self.run_all(session)
        self.assertTrue(any("gloo_driver is not there" in note for note in session.results.notes))
        self.assertEqual(session.count, 1)


class PlanTest(unittest.TestCase):
    def test_without_choices_the_plan_is_the_number_table(self):
        self.assertEqual(options.parse([]).cases, cases_of_the_number_table())

    def test_choices_are_crossed(self):
        chosen = options.parse(["--collectives", "gather,scatter", "--ranks", "2,3",
                                "--transports", "shm"])
        self.assertEqual([case.name for case in chosen.cases],
                         ["gather-shm-2", "scatter-shm-2", "gather-shm-3", "scatter-shm-3"])

    def test_bad_choices_are_refused(self):
        for bad in (["--ranks", "1"], ["--ranks", "x"], ["--ranks", "17"],
                    ["--collectives", "barrier"], ["--collectives", ","],
                    ["--min", "1M", "--max", "1K"], ["--rounds", "0"],
                    ["--max", "huge"], ["--peers", "nccl"], ["--transports", "ib"], ["more"]):
            with (self.subTest(bad=bad), self.assertRaises(SystemExit) as caught,
                  contextlib.redirect_stderr(io.StringIO())):
                options.parse(bad)
            self.assertEqual(caught.exception.code, 2)

    def test_the_best_settings_can_be_left_out(self):
        peers = ("openmpi", "gloo")
        everybody = {one.key for one in contenders("shm", "allreduce", peers, True)}
        self.assertLessEqual({"libcomm", "libcomm-mem", "openmpi", "openmpi-best", "gloo"},
                             everybody)
        self.assertNotIn("mpich", everybody)
        few = [one.key for one in contenders("tcp", "gather", ("openmpi", "gloo"), False)]
        self.assertEqual(few, ["libcomm", "openmpi", "gloo"])

    def test_open_mpi_is_told_when_there_are_more_ranks_than_cores(self):
        one = contender(SHM2, "openmpi")
        self.assertNotIn("--oversubscribe", command(one, Path("p"), 2, 2, []))
        self.assertIn("--oversubscribe", command(one, Path("p"), 4, 2, []))

    def test_the_estimate_grows_with_the_work(self):
        effort = Effort(40000, 3)
        few, many = (Start(SHM2, contender(SHM2, "libcomm"), sizes)
                     for sizes in ((8,), (8, 1 << 27)))
        self.assertLess(estimate_seconds(few, effort), estimate_seconds(many, effort))

    def test_bus_factors_are_those_of_nccl_tests(self):
        self.assertEqual([bus_factor(name, 4) for name in COLLECTIVES],
                         [1.5, 0.75, 0.75, 1, 1, 0.75, 0.75, 0.75, 1])


if __name__ == "__main__":
    unittest.main()
