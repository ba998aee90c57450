"""Writes an initramfs: the cpio format that the kernel calls newc (initramfs-buffer-format.rst)."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import BinaryIO


class Writer:
    """Adds entries to an open file; folders come before what they hold by themselves."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inode = 0
        self._folders: set[str] = set()

    def add(self, path: str, content: bytes, mode: int = 0o755) -> None:
        """An ordinary file."""
        self._parents(path)
        self._entry(path, stat.S_IFREG | mode, content)

    def link(self, path: str, target: str) -> None:
        """A symbolic link."""
        self._parents(path)
        self._entry(path, stat.S_IFLNK | 0o777, target.encode())

    def folder(self, path: str) -> None:
        """And those above it."""
        if path not in self._folders:
            self._parents(path)
            self._folders.add(path)
            self._entry(path, stat.S_IFDIR | 0o755, b"")

    def console(self) -> None:
        """/dev/console, which the kernel opens before there is a devtmpfs."""
        self.folder("dev")
        self._entry("dev/console", stat.S_IFCHR | 0o600, b"", device=(5, 1))

    def close(self) -> None:
        """Writes the trailer, without which the kernel takes none of it."""
        self._inode = -1
        self._entry("TRAILER!!!", 0, b"")

    def _parents(self, path: str) -> None:
        parent = str(Path(path).parent)
        if parent != ".":
            self.folder(parent)

    def _entry(self, path: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        name = path.encode() + b"\0"
        fields = [self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name), 0]
        self._padded(b"070701" + b"".join(b"%08X" % field for field in fields) + name)
        self._padded(content)

    def _padded(self, data: bytes) -> None:
        self._file.write(data + b"\0" * (-len(data) % 4))
