"""The shared libraries that programs need, as this machine's loader finds them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

_FOLDERS = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"]


def needed_by(programs: list[Path], packages: Path) -> dict[str, Path]:
    """Name to file; those of `packages`, an unpacked set, go before this machine's own."""
    found: dict[str, Path] = {}
    search = os.pathsep.join(str(packages / folder) for folder in _FOLDERS)
    # One call for all: most of its time is starting.
    text = subprocess.run(["ldd", *map(str, programs)], env=os.environ | {"LD_LIBRARY_PATH": search},
                          capture_output=True, text=True, check=False).stdout
    missing = sorted(set(re.findall(r"^\s+(\S+) => not found", text, re.MULTILINE)))
    if missing:
        raise FileNotFoundError(f"libraries of the guest's programs: {', '.join(missing)}")
    for name, path in re.findall(r"^\s+(\S+) => (/\S+)", text, re.MULTILINE):
        found[name] = Path(path)
    for path in re.findall(r"^\s+(/\S+) \(0x", text, re.MULTILINE):
        found[Path(path).name] = Path(path)
    return found
