"""Who may work in a folder now? One process at a time; the lock goes with the process, even when it is killed."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from etude.errors import LineageError


@contextmanager
def locked(path: Path, what: str, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path` while the block runs.

    SQLite's own file lock, because it is in the standard library, is released by the system when a process dies, and
    is the same on Linux, macOS and Windows.

    Args:
        path: the lock file; it stays.
        what: what is locked, for the message.
        wait: seconds to wait for another holder.

    Raises:
        LineageError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=wait, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise LineageError(f"{path}: cannot be locked: {error}", "see that the folder can be written") from error
            raise LineageError(f"{what} is being worked on by another process ({path})", "wait for it, or stop it") from None
        yield


def is_locked(path: Path) -> bool:
    """Whether some process, this one too, holds the lock file `path`."""
    if not path.exists():
        return False
    try:
        with locked(path, str(path)):
            return False
    except LineageError:
        return True
