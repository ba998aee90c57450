"""The parser of driver lines."""

import unittest

from benchmarks.compare.output import last_line, parse


class ParserTest(unittest.TestCase):
    def test_reads_rows_skips_limits_and_the_version(self):
        output = parse("@library Open MPI 4.1.4\n"
                       "@row allreduce float 8 12 20000 0.3125 0\n"
                       "@skip reducescatter not on 3 ranks\n"
                       "@note it was slow to leave\n"
                       "@limit line_exchange 0 0.055\n")
        self.assertEqual(output.library, "Open MPI 4.1.4")
        row, = output.rows
        self.assertEqual((row.collective, row.type, row.size, row.bytes),
                         ("allreduce", "float", 8, 12))
        self.assertEqual((row.iterations, row.microseconds, row.wrong), (20000, 0.3125, 0))
        self.assertEqual(output.notes, ["it was slow to leave"])
        self.assertEqual(output.skips, {"reducescatter": "not on 3 ranks"})
        self.assertEqual(output.limits, {("line_exchange", 0): 0.055})

    def test_garbage_and_lines_that_were_cut_short_are_left_alone(self):
        good = "@row allreduce float 8 8 10 1.5 0"
        for garbage in ("", "\0\xff", "hello", "[host:123] *** Process received signal ***",
                        "@row", "@row allreduce float 8", "@row allreduce float 8 8 10 1.5",
                        "@row allreduce float 8 8 10 1.5 0 more",
                        "@row allreduce float x 8 10 1.5 0",
                        "@row allreduce float 8 8 10 nan 0", "@row allreduce float 8 8 10 inf 0",
                        "@row allreduce float 8 8 10 -1 0", "@row allreduce float 8 8 10 0 0",
                        "x@row allreduce float 8 8 10 1.5 0", "@limit", "@limit memcpy_alone 8 ?",
                        "@skip", "@unknown 1 2 3"):
            with self.subTest(garbage=garbage):
                output = parse(f"{garbage}\n{good}\n{garbage}")
                self.assertEqual(len(output.rows), 1)
                self.assertFalse(output.limits or output.skips)

    def test_every_prefix_of_an_output_is_readable(self):
        text = "@library X\n@row allreduce float 8 8 10 1.5 0\n@limit memcpy_alone 8 0.5\n"
        for end in range(len(text)):
            self.assertLessEqual(len(parse(text[:end]).rows), 1)

    def test_the_last_line_is_the_last_that_says_something(self):
        self.assertEqual(last_line("one\n  two \n\n \n"), "two")
        self.assertEqual(last_line(""), "")
        self.assertEqual(len(last_line("x" * 5000)), 200)


if __name__ == "__main__":
    unittest.main()
