"""Reads what tcpdump wrote: the classic capture file of Ethernet frames."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_MAGIC = 0xA1B2C3D4
_ETHERNET = 1


def frames(capture: bytes) -> Iterator[bytes]:
    """Each frame as far as it was kept. A record that was cut short ends the file."""
    if len(capture) < 24:
        raise ValueError(f"no capture file: {len(capture)} bytes")
    order = "<" if struct.unpack("<I", capture[:4])[0] == _MAGIC else ">"
    magic, link = struct.unpack(f"{order}I16xI", capture[:24])
    if magic != _MAGIC or link & 0xFFFF != _ETHERNET:
        raise ValueError(f"no capture of Ethernet frames: magic {magic:#x}, link type {link}")
    at = 24
    while at + 16 <= len(capture):
        (kept,) = struct.unpack(f"{order}8xI4x", capture[at:at + 16])
        frame = capture[at + 16:at + 16 + kept]
        if len(frame) < kept:
            return
        yield frame
        at += 16 + kept
