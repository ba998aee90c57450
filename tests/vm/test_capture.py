"""The readers of captures, on captures made by hand."""

import struct
import unittest

from tests.vm import pcap, roce


def capture(*frames: bytes, order: str = "<", link: int = 1) -> bytes:
    data = struct.pack(f"{order}IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 96, link)
    for frame in frames:
        data += struct.pack(f"{order}IIII", 0, 0, len(frame), 2000) + frame
    return data


def frame(port: int = 4791, source_port: int = 50000, queue_pair: int = 0x123456, number: int = 7,
          options: bytes = b"", kind: int = 0x0800, protocol: int = 17) -> bytes:
    ip = bytes([0x45 + len(options) // 4]) + bytes(8) + bytes([protocol]) + bytes(2)
    ip += bytes([10, 0, 0, 1]) + bytes([10, 0, 0, 2]) + options
    udp = struct.pack("!HHHH", source_port, port, 0, 0)
    transport = struct.pack("!BBHII", 10, 0, 0xFFFF, queue_pair, 0x80000000 | number)
    return bytes(12) + struct.pack("!H", kind) + ip + udp + transport


class PcapTest(unittest.TestCase):
    def test_gives_the_frames_in_either_byte_order(self):
        for order in "<>":
            self.assertEqual(list(pcap.frames(capture(b"one", b"three", order=order))),
                             [b"one", b"three"])

    def test_a_record_that_was_cut_short_ends_the_file(self):
        whole = capture(b"one", b"three")
        for missing in range(1, 21):
            self.assertEqual(list(pcap.frames(whole[:-missing])), [b"one"])

    def test_refuses_what_is_no_capture_of_ethernet(self):
        for bad in (b"", bytes(100), capture(link=113)):
            with self.assertRaises(ValueError):
                list(pcap.frames(bad))


class RoceTest(unittest.TestCase):
    def test_reads_flow_queue_pair_and_number(self):
        expected = roce.Packet("10.0.0.1", "10.0.0.2", 50000, 10, 0x123456, 7)
        self.assertTrue(expected.is_write)
        self.assertEqual(list(roce.packets(capture(frame()))), [expected])
        self.assertEqual(list(roce.packets(capture(frame(options=bytes(8))))), [expected])

    def test_passes_over_everything_else(self):
        others = [frame(port=53), frame(protocol=6), frame(kind=0x86DD), frame()[:50], b"", bytes(96)]
        self.assertEqual(list(roce.packets(capture(*others))), [])


if __name__ == "__main__":
    unittest.main()
