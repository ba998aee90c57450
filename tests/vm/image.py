"""The guest's root file system: busybox, the tools, kernel modules, and the programs under test."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import cpio, libraries, modules
from .packages import Packages, Unavailable

_GUEST = Path(__file__).parent / "guest"
_LIB = "usr/lib/x86_64-linux-gnu"
_LOADER = "ld-linux-x86-64.so.2"
# rdma_rxe asks the crypto layer for crc32 by name; no module depends on it.
_MODULES = ["crc32_generic", "crc32c_generic", "virtio_pci", "virtio_console", "virtio_net", "dummy",
            "sch_netem", "af_packet", "rdma_rxe", "rdma_ucm"]
_TOOLS = ["bin/ip", "bin/ss", "sbin/tc", "usr/bin/rdma", "usr/bin/tcpdump", "usr/bin/ibv_devinfo",
          "usr/bin/ibv_rc_pingpong", "usr/bin/ib_write_bw", "usr/bin/ib_write_lat"]


@dataclass(frozen=True)
class Image:
    """What QEMU boots."""

    kernel: Path
    initramfs: Path


def build(packages: Packages, built: Path, programs: list[str], folder: Path) -> Image:
    """An image with `programs`, files below `built`, in the guest's /usr/bin."""
    folder.mkdir(parents=True, exist_ok=True)
    initramfs = folder / "initramfs"
    root = packages.root
    files = {f"usr/bin/{Path(tool).name}": root / tool for tool in _TOOLS}
    files |= {f"usr/bin/{Path(program).name}": built / program for program in programs}
    plugin = next((root / _LIB / "libibverbs").glob("librxe-*.so"))
    for name, path in libraries.needed_by([*files.values(), plugin], root).items():
        files[f"lib64/{name}" if name == _LOADER else f"{_LIB}/{name}"] = path
    files |= {f"{_LIB}/libibverbs/{plugin.name}": plugin,
              "etc/libibverbs.d/rxe.driver": root / "etc/libibverbs.d/rxe.driver",
              "bin/busybox": root / "bin/busybox", "guest/agent": _GUEST / "agent",
              "init": _GUEST / "init"}
    order = modules.load_order(packages.modules, _MODULES)
    files |= {f"modules/{path.name}": path for path in order}
    with open(initramfs, "wb") as file:
        writer = cpio.Writer(file)
        for name in ("proc", "sys", "tmp", "run"):
            writer.folder(name)
        writer.console()
        writer.link("lib", "usr/lib")
        for name, path in files.items():
            writer.add(name, _stripped(path, folder) if built in path.parents else path.read_bytes())
        writer.add("etc/passwd", b"root:x:0:0:root:/tmp:/bin/sh\n", 0o644)
        writer.add("modules/order", "".join(f"{path.name}\n" for path in order).encode())
        for applet in _applets(root / "bin/busybox"):
            writer.link(f"bin/{applet}", "busybox")
        writer.close()
    return Image(packages.kernel, initramfs)


def _stripped(built: Path, folder: Path) -> bytes:
    """Of what we build, nine tenths are debug information, which the guest would have to unpack."""
    copy = folder / "stripped"
    try:
        subprocess.run(["strip", "-o", str(copy), str(built)], check=True)
        return copy.read_bytes()
    finally:
        copy.unlink(missing_ok=True)


def _applets(busybox: Path) -> list[str]:
    try:
        text = subprocess.run([str(busybox), "--list"], capture_output=True, text=True, check=True).stdout
    except OSError as error:
        raise Unavailable(f"this machine does not run the guest's programs: {error}") from error
    return [name for name in text.split() if name != "busybox"]
