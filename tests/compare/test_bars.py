"""Whether a bar is met, and that a case that did not run is not taken for one that did."""

import unittest

from benchmarks.compare import bars
from benchmarks.compare.cases import cases_of_the_number_table
from benchmarks.compare.results import Results
from tests.compare.samples import SHM2, TCP2, add, results_with

KIB, MIB = 1 << 10, 1 << 20


def verdict(results: Results, name: str) -> bars.Verdict:
    return next(one for one in bars.evaluate(results) if one.bar.name == name)


class BarsTest(unittest.TestCase):
    def test_nothing_is_met_when_nothing_ran(self):
        self.assertEqual({one.text for one in bars.evaluate(Results())}, {"not run"})

    def test_the_stretch_is_below_the_bar(self):
        for bar in bars.BARS:
            self.assertLess(bar.stretch, bar.bar, bar.name)

    def test_bar_stretch_and_neither(self):
        name = "shm, 2 ranks, all-reduce, 8 B"
        for ours, text in ((3.0, "met, and the stretch"), (4.0, "met"), (4.1, "**not met**")):
            results = results_with({"libcomm": {8: ours}, "openmpi": {8: 10.0}})
            self.assertEqual(verdict(results, name).text, text)

    def test_each_size_counts_by_the_worst_in_its_range(self):
        results = results_with({"libcomm": {256: 99.0, 512: 1.0, 32 * KIB: 5.0, 64 * KIB: 99.0},
                                "mpich": {256: 1.0, 512: 10.0, 32 * KIB: 10.0, 64 * KIB: 1.0}})
        measured = verdict(results, "shm, 2 ranks, all-reduce, 512 B to 32 KiB, each size").measured
        self.assertEqual(measured.value, 0.5)
        self.assertEqual(measured.detail, "worst of 2: allreduce shm 2 ranks 32 KiB")

    def test_comm_memory_has_bars_of_its_own(self):
        results = results_with({"libcomm": {MIB: 9.0}, "libcomm-mem": {MIB: 2.0},
                                "openmpi": {MIB: 10.0}})
        name = "the same in commMemAlloc memory, 64 KiB to 8 MiB, each size"
        self.assertAlmostEqual(verdict(results, name).measured.value, 0.2)
        name = "shm, 2 ranks, all-reduce, 64 KiB to 8 MiB, plain memory, each size"
        self.assertAlmostEqual(verdict(results, name).measured.value, 0.9)

    def test_other_collectives_count_by_their_geometric_mean(self):
        case = next(case for case in cases_of_the_number_table() if case.name == "gather-shm-4")
        results = results_with({"libcomm": {8: 1.0, 64: 4.0}, "openmpi": {8: 2.0, 64: 2.0}}, case)
        name = "shm, 4 ranks, gather, geometric mean over 8 B to 128 MiB"
        self.assertAlmostEqual(verdict(results, name).measured.value, 1.0)

    def test_a_single_bad_point_shows(self):
        results = results_with({"libcomm": {8: 1.0, 64: 12.0}, "openmpi": {8: 10.0, 64: 10.0}})
        measured = verdict(results, "no single point of shared memory").measured
        self.assertAlmostEqual(measured.value, 1.2)
        self.assertIn("64 B", measured.detail)

    def test_gloo_is_compared_by_itself(self):
        results = results_with({"libcomm": {8: 1.0}, "openmpi": {8: 2.0}, "gloo": {8: 100.0}}, TCP2)
        self.assertAlmostEqual(
            verdict(results, "TCP on loopback, 2 ranks, all-reduce, 8 B").measured.value, 0.5)
        name = "TCP against Gloo, 2 ranks, all-reduce, up to 4 KiB, each size"
        self.assertAlmostEqual(verdict(results, name).measured.value, 0.01)

    def test_bfloat16_is_compared_with_our_own_float(self):
        results = results_with({"libcomm": {MIB: 10.0}, "libcomm-bf16": {MIB: 12.0}})
        name = "whole all-reduce of bfloat16, 1 to 16 MiB, relative to float of the same bytes"
        self.assertAlmostEqual(verdict(results, name).measured.value, 1.2)

    def test_kernels_are_compared_within_a_round(self):
        results = Results()
        results.kernels["float32"] |= {1: 1.0, 2: 10.0}
        results.kernels["bfloat16"] |= {1: 2.0, 2: 20.0}
        name = "reduction kernel in cache, bfloat16 relative to float of the same bytes"
        self.assertAlmostEqual(verdict(results, name).measured.value, 2.0)

    def test_every_bar_has_a_case_in_the_default_plan(self):
        results = Results()
        for case in cases_of_the_number_table():
            keys = ["libcomm", "openmpi", "gloo"]
            if case == SHM2:
                keys.append("libcomm-bf16")
            if case.transport == "shm":
                keys.append("libcomm-mem")
            for key in keys:
                add(results, case, key, 1, {8 << step: 1.0 for step in range(25)})
        for element in ("float32", "bfloat16", "float16"):
            results.kernels[element][1] = 1.0
        self.assertEqual([one.bar.name for one in bars.evaluate(results) if not one.measured], [])


if __name__ == "__main__":
    unittest.main()
