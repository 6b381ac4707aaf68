"""Whether a path is a place where SQLite in WAL mode keeps its promises. Looks, and writes nothing.

WAL needs memory that is shared between all users of the file and locks that they all see. Network file systems have
neither across hosts, and many lie about the second on one. A hard link is a second name: SQLite derives the names of
its log from the name that it was given, so two names are two logs for one database, and both are wrong.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from holdfast.errors import StoreReplaced, StoreUnavailable, StoreUnsupported

_REFUSED: Final = re.compile(
    r"(nfs\d*|cifs|smb\d*|smbfs|9p|virtiofs|fuse.*|macfuse|osxfuse|webdav|afpfs|afs|lustre|gpfs|ceph|beegfs|vboxsf|prl_fs)"
)
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


def real_path(path: Path) -> Path:
    """The absolute path without symbolic links, which is the name that everyone must use."""
    return Path(os.path.realpath(path))


def check(path: Path) -> None:
    """Refuse a real path that is not, or could not become, a database that we can keep safe.

    Raises:
        StoreUnavailable: the folder is missing, or it or the file may not be written.
        StoreUnsupported: no file, a hard link, or a network file system.
    """
    _check_folder(path.parent)
    if os.path.exists(path):
        _check_file(path)
    refuse_network(path, file_system(path.parent))


def refuse_network(path: Path, kind: str) -> None:
    """Refuse a kind of file system whose locks or shared memory end at the network."""
    if _REFUSED.fullmatch(kind):
        raise StoreUnsupported(
            f"{path} is on a {kind} file system, where SQLite's write-ahead log is not safe",
            hint="put the database on a local disk",
        )


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise StoreUnavailable(f"there is no folder {folder}", hint=f"make it: mkdir -p {folder}")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise StoreUnavailable(
            f"the folder {folder} may not be written by this user",
            hint="SQLite keeps its log beside the database, so the folder must be writable, too",
        )


def refuse_other_than_file(path: Path) -> None:
    """Refuse folders, devices and pipes; SQLite would wait at a pipe until somebody writes into it.

    Raises:
        StoreUnsupported: it is none; trying again does not help.
        StoreUnavailable: nothing is there.
    """
    if not os.path.exists(path):
        raise StoreUnavailable(f"there is no file {path}", hint="give the path of a database file")
    if not os.path.isfile(path):
        raise StoreUnsupported(f"{path} is not a file", hint="give the path of a database file")


def _check_file(path: Path) -> None:
    refuse_other_than_file(path)
    if not os.access(path, os.R_OK | os.W_OK):
        raise StoreUnavailable(
            f"{path} may not be read and written by this user", hint="look at its owner, its mode and the mount"
        )
    refuse_hard_link(path, path.stat().st_nlink)


def refuse_hard_link(path: Path, links: int) -> None:
    """Refuse a file that has another name."""
    if links > 1:
        raise StoreUnsupported(
            f"{path} has {links} names (hard links), and each would get a log of its own",
            hint="keep one of the names, or make a copy",
        )


def create(path: Path) -> None:
    """Make an empty file that only its owner may read, if there is none.

    SQLite would make it readable for all. The descriptor is closed at once; that is safe here, and only here, because a
    file that did not exist has no connections whose locks the closing could drop.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise StoreUnavailable(f"cannot make {path}: {error.strerror}", hint="is the disk full?") from error


def identity(path: Path) -> tuple[int, int]:
    """Device and inode of the file at the path, found without opening it.

    Raises:
        StoreReplaced: there is none any more.
        StoreUnsupported: it has more than one name.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise StoreReplaced(
            f"{path} was removed while it was open", hint="stop every process that uses it, then restore it from a copy"
        ) from None
    refuse_hard_link(path, status.st_nlink)
    return status.st_dev, status.st_ino


def file_system(folder: Path) -> str:
    """The kind of file system that holds a folder; empty where the system does not tell."""
    platform: str = sys.platform  # as a plain string, so that type checkers read the other platforms' branches, too
    if platform == "linux":
        return kind_in_mountinfo(folder, Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape"))
    if platform == "darwin":
        mounts = subprocess.run(["/sbin/mount"], capture_output=True, check=False, text=True, timeout=10).stdout
        return kind_in_mount(folder, mounts)
    return ""


def kind_in_mountinfo(folder: Path, mounts: str) -> str:
    """Read Linux's `mountinfo`: of the mounts above the folder the deepest counts, and of equals the last."""
    kinds: list[tuple[str, str]] = []
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        mount_point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), before.split(" ")[4])
        kinds.append((mount_point, after.partition(" ")[0]))
    return _deepest(folder, kinds)


def kind_in_mount(folder: Path, mounts: str) -> str:
    """Read what macOS prints: `/dev/disk3s1 on /System/Volumes/Data (apfs, local, journaled)`."""
    found = re.finditer(r"^.*? on (?P<point>/.*) \((?P<kind>\w+)[,)]", mounts, re.MULTILINE)
    return _deepest(folder, [(match["point"], match["kind"]) for match in found])


def _deepest(folder: Path, kinds: list[tuple[str, str]]) -> str:
    best, depth = "", -1
    for mount_point, kind in kinds:
        parts = len(Path(mount_point).parts)
        if parts >= depth and folder.is_relative_to(mount_point):
            best, depth = kind, parts
    return best
