"""The numbers in what programs print."""

from __future__ import annotations

import re

from .suite import CaseFailed


def write_bw(text: str) -> float:
    """MB/s of rdma_write_bw."""
    return _find(r"MB_per_s ([\d.]+)", text)


def ping_pong_us(text: str) -> float:
    """One way, of rdma_write_bw --ping_pong and vm_ping_pong."""
    return _find(r"usec_one_way ([\d.]+)", text)


def ib_write_bw(text: str) -> float:
    """Average MB/s of perftest, whose MB are 2^20 bytes, turned into 10^6."""
    return _find(r"^ *\d+ +\d+ +[\d.]+ +([\d.]+) ", text) * 1.048576


def rc_pingpong_us(text: str) -> float:
    """One way; ibv_rc_pingpong's iteration is there and back."""
    return _find(r"= ([\d.]+) usec/iter", text) / 2


def perf_us(text: str) -> float:
    """Of the first row of a *_perf program."""
    return _find(r"^ +\d+ +\d+ +\w+ +\S+ +-?\d+ +([\d.]+) ", text)


def _find(pattern: str, text: str) -> float:
    found = re.search(pattern, text, re.MULTILINE)
    if not found or float(found[1]) <= 0:
        raise CaseFailed(f"no number like {pattern} in:\n{text}")
    return float(found[1])
