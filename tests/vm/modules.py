"""Kernel modules in the order in which they must be inserted."""

from __future__ import annotations

from pathlib import Path


def load_order(folder: Path, wanted: list[str]) -> list[Path]:
    """The files of `wanted` and of all that they depend on, dependencies first.

    A module that is not under `folder` is taken as built into the kernel.
    """
    files = {_name(path.stem): path for path in folder.rglob("*.ko")}
    order: list[Path] = []
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name in seen:
            return
        seen.add(name)
        if name in files:
            for dependency in depends(files[name].read_bytes()):
                visit(_name(dependency))
            order.append(files[name])

    for name in wanted:
        visit(_name(name))
    return order


def depends(module: bytes) -> list[str]:
    """What a module says of itself in its .modinfo: NAME=VALUE strings, each ended by a zero byte."""
    start = module.find(b"\0depends=")
    if start < 0:
        return []
    start += len(b"\0depends=")
    text = module[start:module.index(b"\0", start)].decode()
    return [name for name in text.split(",") if name]


def _name(text: str) -> str:
    return text.replace("-", "_")
