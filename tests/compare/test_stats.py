"""Medians, ratios, means, and the sizes they are printed with."""

import unittest

from benchmarks.compare.results import Results
from benchmarks.compare.sizes import (format_duration, format_size, format_time, parse_size,
                                      sizes_between)
from benchmarks.compare.stats import geometric_mean, median, median_ratio, ratios
from tests.compare.samples import SHM2, TCP2, add, results_with


class StatsTest(unittest.TestCase):
    def test_ratios_compare_within_a_round(self):
        # The machine was ten times slower in round 2: the ratio is still one half everywhere.
        ours, theirs = {1: 1.0, 2: 10.0, 3: 1.0}, {1: 2.0, 2: 20.0, 3: 2.0}
        self.assertEqual(ratios(ours, theirs), {1: 0.5, 2: 0.5, 3: 0.5})
        self.assertEqual(median_ratio(ours, theirs), 0.5)

    def test_the_median_ratio_is_not_the_ratio_of_medians(self):
        ours, theirs = {1: 1.0, 2: 4.0, 3: 6.0}, {1: 4.0, 2: 8.0, 3: 3.0}
        self.assertEqual(median_ratio(ours, theirs), 0.5)

    def test_rounds_that_one_of_them_lacks_do_not_count(self):
        self.assertEqual(ratios({1: 1.0, 2: 3.0}, {2: 6.0, 3: 1.0}), {2: 0.5})
        self.assertIsNone(median_ratio({1: 1.0}, {2: 1.0}))

    def test_median_of_odd_even_and_no_rounds(self):
        self.assertEqual(median({1: 5.0, 2: 1.0, 3: 3.0}), 3.0)
        self.assertEqual(median({1: 1.0, 2: 3.0}), 2.0)
        self.assertIsNone(median({}))

    def test_geometric_mean(self):
        self.assertAlmostEqual(geometric_mean([0.5, 2.0]), 1.0)
        self.assertAlmostEqual(geometric_mean([0.25]), 0.25)
        self.assertIsNone(geometric_mean([]))
        self.assertIsNone(geometric_mean([1.0, 0.0]))


class ResultsTest(unittest.TestCase):
    def test_the_best_peer_is_chosen_per_size_among_defaults(self):
        results = results_with({"libcomm": {8: 1.0, 64: 1.0}, "openmpi": {8: 2.0, 64: 8.0},
                                "openmpi-best": {8: 0.1, 64: 0.1}, "mpich": {8: 4.0, 64: 5.0}})
        self.assertEqual(results.best_peer(SHM2, 8), "openmpi")
        self.assertEqual(results.best_peer(SHM2, 64), "mpich")
        self.assertEqual(dict(results.ratios(SHM2)), {8: 0.5, 64: 0.2})
        self.assertEqual(dict(results.ratios(SHM2, least=64)), {64: 0.2})

    def test_a_wrong_result_is_not_a_time(self):
        results = results_with({"libcomm": {8: 1.0}})
        add(results, SHM2, "openmpi", 1, {8: 2.0}, wrong=1)
        self.assertIsNone(results.ratio(SHM2, 8))
        self.assertEqual(len(results.samples), 2)

    def test_a_case_without_peers_has_no_ratio(self):
        self.assertEqual(list(results_with({"libcomm": {8: 1.0}}).ratios(SHM2)), [])
        self.assertEqual(list(Results().ratios(TCP2)), [])


class SizesTest(unittest.TestCase):
    def test_sizes_are_read_and_written(self):
        self.assertEqual([parse_size(text) for text in ("8", "32K", "1.5k", "128M")],
                         [8, 32 << 10, 1536, 128 << 20])
        for bad in ("x", "0", "-8", "8Q", "nan"):
            with self.assertRaises(ValueError):
                parse_size(bad)
        self.assertEqual([format_size(size) for size in (8, 1 << 10, 1536, 3 << 20)],
                         ["8 B", "1 KiB", "1536 B", "3 MiB"])
        self.assertEqual(sizes_between(8, 64, 4), [8, 32])

    def test_times_have_three_digits(self):
        times = (0.05512, 1.234, 14.25, 999.4, 14250.0, 2e6)
        self.assertEqual([format_time(time) for time in times],
                         ["0.055 us", "1.23 us", "14.2 us", "999 us", "14.2 ms", "2.00 s"])
        self.assertEqual([format_duration(time) for time in (5, 125, 7500)],
                         ["5 s", "2 min", "2 h 05 min"])


if __name__ == "__main__":
    unittest.main()
