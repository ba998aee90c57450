"""What the guest's file system is made of."""

import io
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from tests.vm import cpio, modules, packages


class CpioTest(unittest.TestCase):
    def written(self) -> bytes:
        file = io.BytesIO()
        writer = cpio.Writer(file)
        writer.add("a/deep/file", b"content", 0o644)
        writer.add("a/deep/tool", b"#!")
        writer.link("link", "a/deep")
        writer.close()
        return file.getvalue()

    def test_every_entry_starts_at_a_multiple_of_four_and_the_trailer_is_last(self):
        data = self.written()
        at, names = 0, []
        while at < len(data):
            self.assertEqual(data[at:at + 6], b"070701")
            size, name_size = int(data[at + 54:at + 62], 16), int(data[at + 94:at + 102], 16)
            names.append(data[at + 110:at + 110 + name_size - 1].decode())
            at += (110 + name_size + 3) // 4 * 4
            at += (size + 3) // 4 * 4
        self.assertEqual(names, ["a", "a/deep", "a/deep/file", "a/deep/tool", "link", "TRAILER!!!"])

    @unittest.skipUnless(shutil.which("cpio"), "no cpio here")
    def test_cpio_unpacks_it(self):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["cpio", "-idm", "--quiet"], input=self.written(), cwd=folder, check=True)
            self.assertEqual((Path(folder) / "link/file").read_bytes(), b"content")
            self.assertFalse(os.access(Path(folder) / "a/deep/file", os.X_OK))
            self.assertTrue((Path(folder) / "a/deep/tool").stat().st_mode & 0o100)


class ModulesTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def module(self, path: str, depends: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0")

    def test_dependencies_come_first_and_once(self):
        self.module("net/top.ko", "left,right")
        self.module("left.ko", "base-part")
        self.module("right.ko", "base_part,built_in")
        self.module("core/base-part.ko", "")
        order = [path.name for path in modules.load_order(self.folder, ["top", "left"])]
        self.assertEqual(order, ["base-part.ko", "left.ko", "right.ko", "top.ko"])

    def test_a_module_without_modinfo_depends_on_nothing(self):
        self.assertEqual(modules.depends(b"\x7fELF"), [])


class PackagesTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.cache = Path(folder.name) / "cache"
        path, os.environ["PATH"] = os.environ["PATH"], folder.name
        self.addCleanup(os.environ.__setitem__, "PATH", path)

    def complete_set(self, name: str, age_s: int) -> None:
        boot = self.cache / name / "root/boot"
        boot.mkdir(parents=True)
        (boot / f"vmlinuz-{name}").touch()
        mark = self.cache / name / "complete"
        mark.touch()
        os.utime(mark, (mark.stat().st_atime - age_s, mark.stat().st_mtime - age_s))

    def name(self, version: str) -> str:
        return f"{packages.names_digest()}-{version}"

    def test_without_apt_and_without_a_set_it_says_what_is_missing(self):
        with self.assertRaisesRegex(packages.Unavailable, "no apt-get"):
            packages.fetch(self.cache)

    def test_without_apt_the_newest_complete_set_serves(self):
        self.complete_set(self.name("old"), 90 * 86400)
        self.complete_set(self.name("new"), 60 * 86400)
        self.complete_set("othernames-newer", 0)
        (self.cache / self.name("incomplete")).mkdir()
        self.assertEqual(packages.fetch(self.cache).kernel_version, self.name("new"))


if __name__ == "__main__":
    unittest.main()
