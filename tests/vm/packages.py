"""Debian's packages that a guest is made of: fetched and unpacked, never installed.

They lie under CACHE/NAMES-VERSIONS/, two digests. A set serves for a week before apt-get is asked for newer
versions, and for longer where it cannot be asked.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

_TOOLS = ["busybox-static", "ibverbs-utils", "iproute2", "perftest", "tcpdump"]
# What the tools link and a machine that only builds libcomm may not have.
_LIBRARIES = ["ibverbs-providers", "libbpf1", "libbsd0", "libcap2", "libelf1", "libibverbs1", "libmd0",
              "libmnl0", "libnl-3-200", "libnl-route-3-200", "libpcap0.8", "libpci3", "librdmacm1",
              "libudev1", "libxtables12"]
_COMPLETE = "complete"
"""An empty file in a set; its time is when apt-get last said that there is nothing newer."""
_FRESH_S = 7 * 86400


class Unavailable(Exception):
    """Why there can be no virtual machine here, and what would change that."""


@dataclass(frozen=True)
class Packages:
    """An unpacked set."""

    root: Path
    kernel: Path
    modules: Path
    """The folder of the kernel's modules, lib/modules/VERSION."""
    kernel_version: str


def cache_folder() -> Path:
    """Shared by all clones of the repository."""
    chosen = os.environ.get("LIBCOMM_VM_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "libcomm-vm"


def fetch(cache: Path) -> Packages:
    """The set that this machine's package lists name, or Unavailable."""
    cache.mkdir(parents=True, exist_ok=True)
    newest = _newest(cache)
    if newest and time.time() - (newest / _COMPLETE).stat().st_mtime < _FRESH_S:
        return _describe(newest)
    try:
        folder = _up_to_date(cache)
    except Unavailable:
        if not newest:
            raise
        folder = newest
    (folder / _COMPLETE).touch()
    return _describe(folder)


def names_digest() -> str:
    """Of which packages a set consists, whatever their versions."""
    return _digest([*_TOOLS, *_LIBRARIES])


def _newest(cache: Path) -> Path | None:
    """The complete set of the names above that was asked for last."""
    complete = list(cache.glob(f"{names_digest()}-*/{_COMPLETE}"))
    return max(complete, key=lambda path: path.stat().st_mtime).parent if complete else None


def _up_to_date(cache: Path) -> Path:
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise Unavailable("no apt-get and dpkg-deb here; the guest is made of Debian 12's packages")
    names = _names()
    listed = _apt("download", "--print-uris", *names)
    # File names, which hold versions.
    files = [line.split()[1] for line in listed.splitlines() if line.startswith("'")]
    folder = cache / f"{names_digest()}-{_digest(files)}"
    if not (folder / _COMPLETE).exists():
        _download(names, folder)
    return folder


def _digest(words: list[str]) -> str:
    return hashlib.sha256("\n".join(sorted(words)).encode()).hexdigest()[:12]


def _names() -> list[str]:
    """With the kernel that linux-image-amd64 stands for today."""
    depends = _run(["apt-cache", "depends", "linux-image-amd64"])
    kernels = [line.split()[-1] for line in depends.splitlines()
               if line.strip().startswith("Depends: linux-image-")]
    if not kernels:
        raise Unavailable("apt-cache knows no linux-image-amd64; apt-get update, on Debian 12")
    return [kernels[0], *_TOOLS, *_LIBRARIES]


def _download(names: list[str], folder: Path) -> None:
    """Unpacks into a folder beside, which takes its name when all is there."""
    with tempfile.TemporaryDirectory(prefix="new-", dir=folder.parent) as name:
        new = Path(name)
        _apt("download", *names, folder=new)
        (new / "root").mkdir()
        for package in sorted(new.glob("*.deb")):
            _run(["dpkg-deb", "-x", str(package), str(new / "root")])
            package.unlink()
        (new / _COMPLETE).touch()
        shutil.rmtree(folder, ignore_errors=True)
        try:
            os.replace(new, folder)
        except OSError:
            if not (folder / _COMPLETE).exists():  # nobody else was faster
                raise
        else:
            new.mkdir()  # what the context manager expects to remove


def _describe(folder: Path) -> Packages:
    root = folder / "root"
    kernel = next((root / "boot").glob("vmlinuz-*"))
    version = kernel.name.removeprefix("vmlinuz-")
    return Packages(root, kernel, root / "lib/modules" / version, version)


def _apt(*arguments: str, folder: Path | None = None) -> str:
    """apt-get; once more after an update where the lists are missing or stale and we may update."""
    command = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", *arguments]
    try:
        return _run(command, folder)
    except Unavailable:
        if os.geteuid() != 0:
            raise
    _run(["apt-get", "-q", "update"])
    return _run(command, folder)


def _run(command: list[str], folder: Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          errors="replace", check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "no word").splitlines()[-1]
        raise Unavailable(f"{' '.join(command[:4])} ...: {said}")
    return done.stdout
