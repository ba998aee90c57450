"""What counts as a stall."""

import unittest

from tests.vm.progress import longest_stall


def steady(start: float, end: float, sent: int, rate: int = 100) -> list[tuple[float, int]]:
    count = round((end - start) / 0.1)
    return [(start + i * 0.1, sent + i * rate) for i in range(count)]


class StallTest(unittest.TestCase):
    def test_steady_work_stalls_for_no_longer_than_a_sample(self):
        self.assertLess(longest_stall(steady(0, 3, 0), 0), 0.15)

    def test_a_pause_counts_and_so_does_one_of_repeated_packets(self):
        samples = steady(0, 1, 0) + [(1.0, 910), (1.4, 920), (1.8, 930)] + steady(2, 3, 1000)
        self.assertAlmostEqual(longest_stall(samples, 0), 1.1, places=6)

    def test_what_was_before_or_is_at_the_end_does_not_count(self):
        samples = steady(0, 1, 0) + steady(5, 6, 1000) + [(9.0, 1901)]
        self.assertLess(longest_stall(samples, 5), 0.15)
        self.assertEqual(longest_stall(samples, 100), 0.0)


if __name__ == "__main__":
    unittest.main()
