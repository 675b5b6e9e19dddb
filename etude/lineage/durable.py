"""How does a folder appear whole or not at all, whatever happens meanwhile?

Written aside (`.aside-…`, a sibling), flushed to the disk, renamed: after a crash or a power cut either the
whole folder is there under its name, or a leftover that says by its name that it is none.
"""

import os
import platform
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path

PREFIX = ".aside-"
DAY = 24 * 3600

MARGIN = 64 * 2**20
"""Bytes that must stay free beside what is written: for metrics, the file system's own needs, other programs."""

_mine: set[str] = set()


def _host() -> str:
    return "".join(c if c.isalnum() else "-" for c in platform.node())


def _aside(parent: Path) -> Path:
    name = f"{PREFIX}{_host()}.{os.getpid()}.{secrets.token_hex(4)}"
    _mine.add(name)
    return parent / name


def new_aside(parent: Path) -> Path:
    """A fresh empty folder in `parent`, whose name tells host and process, so that a leftover can be told from work in progress."""
    folder = _aside(parent)
    parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir()
    return folder


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries (not its files' contents) to the disk."""
    if os.name == "nt":  # Windows opens no folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Flush a file's contents to the disk."""
    with path.open("rb+" if os.name == "nt" else "rb") as file:  # Windows flushes only what may be written
        os.fsync(file.fileno())


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder`, the folder last."""
    for at, _, files in os.walk(folder, topdown=False):
        for name in files:
            if not (Path(at) / name).is_symlink():
                sync_file(Path(at) / name)
        sync_folder(Path(at))


def settle(aside: Path, target: Path) -> None:
    """Give a folder written aside its name, for good. FileExistsError where the name is taken by a folder with content."""
    sync_tree(aside)
    try:
        aside.rename(target)
    except OSError:
        if target.exists():
            raise FileExistsError(str(target)) from None
        raise
    sync_folder(target.parent)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that readers see the old one or the new one, and the disk has it on return; `write` fills the path it is given."""
    aside = _aside(path.parent)
    try:
        write(aside)
        sync_file(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_file(path: Path, text: str) -> None:
    """The same for a small text (UTF-8)."""
    write_whole(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def remove_tree(folder: Path) -> None:
    """Remove a folder so that it is gone at once: renamed aside first, then emptied."""
    aside = new_aside(folder.parent)
    folder.rename(aside / folder.name)
    sync_folder(folder.parent)
    shutil.rmtree(aside)


def _abandoned(aside: Path) -> bool:
    host, _, rest = aside.name.removeprefix(PREFIX).partition(".")
    process = rest.partition(".")[0]
    if host == _host() and process == str(os.getpid()):  # in a container every process may have the same number
        return aside.name not in _mine
    if host == _host() and process.isdigit() and os.name != "nt":
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False
    return time.time() - aside.stat().st_mtime > DAY  # another machine's process cannot be asked


def leftovers(parent: Path) -> list[Path]:
    """What was being written or removed in `parent` by a process that is gone: of this host, or of another a day ago."""
    if not parent.is_dir():
        return []
    found = []
    for entry in parent.glob(PREFIX + "*"):
        try:
            if _abandoned(entry):
                found.append(entry)
        except FileNotFoundError:  # its process finished while we looked
            continue
    return sorted(found)


def folder_size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum((Path(at) / name).lstat().st_size for at, _, files in os.walk(path) for name in files)


def lacking(folder: Path, needed: int) -> str | None:
    """Why `needed` bytes have no room in `folder` (which may be yet to be made), in figures; None where they have."""
    at = next(above for above in (folder, *folder.absolute().parents) if above.exists())
    free = shutil.disk_usage(at).free
    if free >= needed + MARGIN:
        return None
    return f"it needs {size(needed)} and a margin of {size(MARGIN)}, {folder} has {size(free)} free"


def size(count: int) -> str:
    """Bytes in words."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**28 else f"{count / 2**20:.1f} MiB"
