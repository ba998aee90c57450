"""RoCE v2 in a capture: UDP to port 4791, then the base transport header (InfiniBand spec, 9.2)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from . import pcap

PORT = 4791
_IPV4, _UDP = 0x0800, 17
_RC_WRITES = range(0x06, 0x0C)
"""RDMA WRITE first, middle, last, last with immediate, only, only with immediate."""


@dataclass(frozen=True)
class Packet:
    """What tells one from another."""

    source: str
    destination: str
    source_port: int
    """Of UDP: what a fabric's ECMP hash tells flows apart by."""
    opcode: int
    queue_pair: int
    """The destination's."""
    number: int
    """PSN: a packet that is sent again has the same."""

    @property
    def is_write(self) -> bool:
        """Whether it carries a part of an RDMA write."""
        return self.opcode in _RC_WRITES


def packets(capture: bytes) -> Iterator[Packet]:
    """Those of RoCE v2 over IPv4; everything else is passed over."""
    for frame in pcap.frames(capture):
        packet = _parse(frame)
        if packet:
            yield packet


def _parse(frame: bytes) -> Packet | None:
    if len(frame) < 34 or struct.unpack("!H", frame[12:14])[0] != _IPV4 or frame[23] != _UDP:
        return None
    datagram = frame[14 + 4 * (frame[14] & 15):]
    if len(datagram) < 20:
        return None
    source_port, port = struct.unpack("!HH", datagram[:4])
    if port != PORT:
        return None
    header = datagram[8:20]
    queue_pair, number = int.from_bytes(header[5:8], "big"), int.from_bytes(header[9:12], "big")
    return Packet(_address(frame[26:30]), _address(frame[30:34]), source_port, header[0], queue_pair, number)


def _address(four: bytes) -> str:
    return ".".join(map(str, four))
