"""Real file systems of a few MiB, mounted for one test: they fill up, go read-only and fail as any disk does.

Mounting takes root; elsewhere the tests that need a disk are skipped and say so. Those on memory disks run without root
in a namespace: `unshare --map-root-user --mount .venv/bin/pytest tests/test_promise_disk.py`.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MIB = 2**20
FILLER = "filler"


def _mounted(folder: Path, *arguments: str) -> bool:
    folder.mkdir(exist_ok=True)
    mount = shutil.which("mount")
    if mount is None:
        return False
    return subprocess.run([mount, *arguments, str(folder)], capture_output=True, check=False).returncode == 0


@contextmanager
def memory_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system in memory that holds `size` bytes, at this folder."""
    if not _mounted(folder, "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
        pytest.skip("a file system of its own can't be mounted here: that takes root on Linux")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def block_disk(folder: Path, size: int = 32 * MIB) -> Iterator[Path]:
    """An ext4 file system on a loop device, which `break_down` can take through what a failing disk does."""
    maker, image = shutil.which("mkfs.ext4"), folder.with_suffix(".img")
    if maker is None:
        pytest.skip("mkfs.ext4 is not installed")
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([maker, "-q", str(image)], check=True)
    if not mount_image(folder):
        pytest.skip("a disk image can't be mounted here: that takes root and loop devices on Linux")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def mount_image(folder: Path) -> bool:
    """Mount the image beside this folder."""
    return _mounted(folder, "-o", "loop", str(folder.with_suffix(".img")))


def break_down(folder: Path) -> None:
    """Let ext4 do what it does after an error of the device: no more writes, also to open files."""
    subprocess.run(["mount", "-o", "remount,abort", str(folder)], check=True)


def reboot(folder: Path) -> None:
    """Mount again what reached the device before it broke down."""
    subprocess.run(["umount", str(folder)], check=True)
    assert mount_image(folder)


def make_read_only(folder: Path) -> None:
    """Remount a disk on which no file is open for writing."""
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def fill(folder: Path, leave: int = 0) -> None:
    """Take all room but the last `leave` bytes (whole pages)."""
    free = os.statvfs(folder)
    taken = free.f_bavail * free.f_frsize - leave
    with (folder / FILLER).open("ab") as file:
        os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, taken)


def make_room(folder: Path) -> None:
    """Take the filler away."""
    (folder / FILLER).unlink()
