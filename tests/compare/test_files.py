"""What a comparison writes: table.md, results.csv and the charts."""

import csv
import io
import re
import tempfile
import unittest
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.compare import charts, csv_file, limits, markdown, svg
from benchmarks.compare.__main__ import status, write_files
from benchmarks.compare.cases import Case
from benchmarks.compare.results import Failure, Results
from tests.compare.samples import SHM2, add, results_with

SVG = "{http://www.w3.org/2000/svg}"


def measured() -> Results:
    results = results_with({"libcomm": {8: 0.25, 1 << 20: 200.0},
                            "openmpi": {8: 0.5, 1 << 20: 400.0}, "gloo": {8: 300.0}})
    for name in ("allreduce_floor", "memcpy_alone", "memcpy_both"):
        results.limits[name, 8] |= {1: 0.1}
        results.limits[name, 1 << 20] |= {1: 60.0}
    results.limits["line_exchange", 0] |= {1: 0.05}
    return results


class ChartTest(unittest.TestCase):
    def test_charts_are_well_formed_and_show_every_line_and_the_band(self):
        texts = charts.write(measured(), SHM2)
        self.assertEqual(set(texts), {"allreduce-shm-2-time.svg", "allreduce-shm-2-busbw.svg"})
        for text in texts.values():
            root = ElementTree.fromstring(text)
            self.assertEqual(root.tag, f"{SVG}svg")
            self.assertEqual(len(root.findall(f"{SVG}polyline")), 3)
            self.assertEqual(len(root.findall(f"{SVG}polygon")), 1)
            words = [element.text for element in root.iter(f"{SVG}text")]
            for word in ("libcomm", "Open MPI", "Gloo", "the machine's limits", "8 B", "1 MiB"):
                self.assertIn(word, words)

    def test_all_points_are_inside_the_page(self):
        for text in charts.write(measured(), SHM2).values():
            for curve in ElementTree.fromstring(text).findall(f"{SVG}polyline"):
                for pair in curve.get("points").split():
                    x, y = map(float, pair.split(","))
                    self.assertTrue(0 <= x <= svg.WIDTH and 0 <= y <= svg.HEIGHT, pair)

    def test_less_time_is_lower_and_more_bandwidth_higher(self):
        texts = charts.write(measured(), SHM2)
        for name, sign in (("allreduce-shm-2-time.svg", 1), ("allreduce-shm-2-busbw.svg", -1)):
            ours, openmpi, _ = (
                float(curve.get("points").split()[0].split(",")[1])
                for curve in ElementTree.fromstring(texts[name]).findall(f"{SVG}polyline"))
            self.assertGreater(sign * (ours - openmpi), 0, name)

    def test_odd_names_and_few_points_still_make_a_file(self):
        for points in ([], [(8.0, 1.0)], [(8.0, 3.0), (64.0, 3.0)]):
            line = svg.Line("<a & \"b\">", 0, False, points)
            root = ElementTree.fromstring(svg.write(svg.Chart("<t> & 'u'", "y", [line], str)))
            self.assertEqual(root.find(f"{SVG}title").text, "<t> & 'u'")

    def test_both_backgrounds_have_a_style(self):
        text = svg.write(svg.Chart("t", "y", [], str))
        self.assertIn("prefers-color-scheme:dark", text)


class LimitsTest(unittest.TestCase):
    def test_between_sizes_the_curve_is_a_power_law(self):
        curve = {100: 1.0, 10000: 100.0}
        self.assertAlmostEqual(limits.interpolate(curve, 1000), 10.0)
        self.assertEqual(limits.interpolate(curve, 1), 1.0)
        self.assertAlmostEqual(limits.interpolate(curve, 20000), 200.0)
        self.assertIsNone(limits.interpolate({}, 8))

    def test_the_band_has_a_floor_and_a_ceiling_in_every_case(self):
        names = ("allreduce", "allgather", "reducescatter", "broadcast", "reduce", "alltoall",
                 "gather", "scatter", "sendrecv")
        for transport in ("shm", "tcp"):
            for name in names:
                for ranks in (2, 4):
                    case = Case(transport, name, ranks)
                    results = measured()
                    for curve in ("socket_one_way", "socket_both_ways"):
                        results.limits[curve, 8] |= {1: 9.0}
                    results.limits["socket_latency", 0] |= {1: 5.0}
                    add(results, case, "libcomm", 1, {8: 1.0, 1 << 20: 100.0})
                    band = limits.band(results, case)
                    self.assertEqual(len(band), 2, case)
                    for _, low, high in band:
                        self.assertTrue(0 < low <= high, case)

    def test_without_limits_there_is_no_band(self):
        self.assertEqual(limits.band(results_with({"libcomm": {8: 1.0}}), SHM2), [])


class TableTest(unittest.TestCase):
    def test_the_table_has_times_ratios_and_the_best_peer(self):
        text = markdown.write(measured(), ["about"])
        row = next(line for line in text.splitlines() if line.startswith("| 8 B | 0.250 us"))
        self.assertEqual(row, "| 8 B | 0.250 us | 0.500 us | 300 us | 0.50 | Open MPI |")

    def test_every_row_of_a_table_has_as_many_cells_as_its_header(self):
        results = measured()
        results.failures.append(Failure(SHM2, "gloo", 1, "exit status 1", "a | b"))
        width = None
        for line in markdown.write(results, ["about"]).splitlines():
            if not line.startswith("|"):
                width = None
                continue
            cells = len(re.findall(r"(?<!\\)\|", line))
            width = width or cells
            self.assertEqual(cells, width, line)

    def test_a_failure_is_told_with_its_last_line(self):
        results = measured()
        results.failures.append(Failure(SHM2, "gloo", 2, "did not end within 30 s", "oh no"))
        text = markdown.write(results, [])
        self.assertIn("round 2: Gloo did not end within 30 s. Its last line: `oh no`", text)

    def test_a_wrong_result_stands_out(self):
        results = measured()
        add(results, SHM2, "openmpi", 2, {8: 0.5}, wrong=3)
        self.assertIn("**WRONG**", markdown.write(results, []))

    def test_only_our_own_failures_fail_the_run(self):
        results = measured()
        self.assertEqual(status(results, strict=False), 0)
        results.failures.append(Failure(SHM2, "gloo", 1, "exit status 1", ""))
        self.assertEqual(status(results, strict=False), 0)
        results.failures.append(Failure(SHM2, "libcomm-mem", 1, "exit status 1", ""))
        self.assertEqual(status(results, strict=False), 1)

    def test_strict_demands_the_bars(self):
        self.assertEqual(status(measured(), strict=True), 1)
        good = results_with({"libcomm": {8: 1.0}, "openmpi": {8: 10.0}})
        self.assertEqual(status(good, strict=True), 0)


class FilesTest(unittest.TestCase):
    def test_the_csv_file_has_every_sample(self):
        file = io.StringIO()
        csv_file.write(measured(), file)
        rows = list(csv.DictReader(io.StringIO(file.getvalue())))
        self.assertEqual(tuple(rows[0]), csv_file.HEADER)
        ours = [row for row in rows if row["contender"] == "libcomm"]
        self.assertEqual([(row["size"], row["microseconds"]) for row in ours],
                         [("8", "0.25"), (str(1 << 20), "200.0")])
        self.assertEqual(len([row for row in rows if row["transport"] == "limit"]), 7)

    def test_charts_of_an_earlier_run_do_not_stay(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "new"
            write_files(measured(), [], folder)
            (folder / "gather-shm-9-time.svg").write_text("old")
            write_files(measured(), [], folder)
            self.assertEqual({path.name for path in folder.iterdir()},
                             {"table.md", "results.csv", "allreduce-shm-2-time.svg",
                              "allreduce-shm-2-busbw.svg"})


if __name__ == "__main__":
    unittest.main()
