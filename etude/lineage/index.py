"""What lies in the project, quickly? A SQLite index that only repeats what the folders say.

The folders are the truth: rows are added, renewed and removed by looking at them, so the index may be deleted at any
time. It also remembers hashes of large files.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from etude.errors import LineageError
from etude.lineage.durable import PREFIX
from etude.lineage.fingerprint import RECORD
from etude.lineage.lock import locked
from etude.lineage.record import Record, read_record

LAYOUT = 1
"""Of the tables; an index of another layout is made anew."""

SETTLED = 2_000_000_000
"""Nanoseconds: a file changed more recently could change again within one tick of its clock, so its hash is not remembered."""

TABLES = """
CREATE TABLE artefacts (
    name TEXT NOT NULL, version INTEGER NOT NULL, stamp TEXT NOT NULL, record TEXT NOT NULL, PRIMARY KEY (name, version)
);
CREATE TABLE hashes (path TEXT PRIMARY KEY, stamp TEXT NOT NULL, sha256 TEXT NOT NULL);
"""


def stamp(seen: os.stat_result) -> str:
    """What tells a file from a changed one without reading it: size, time, place."""
    return f"{seen.st_size}:{seen.st_mtime_ns}:{seen.st_dev}:{seen.st_ino}"


class Index:
    """The index of one project folder; `notes` collects what was mended or left out, for the caller to print.

    Args:
        file: `index.sqlite`; made anew where it is missing, damaged or of another layout.
        artefacts: the folder of `NAME/VERSION/etude.json`.
    """

    def __init__(self, file: Path, artefacts: Path):
        self.file, self.artefacts = file, artefacts
        self.notes: list[str] = []
        # Under a lock: of two processes that find it missing or damaged, one makes it.
        with locked(file.with_name("index.lock"), "the index", wait=60):
            try:
                self._check()
            except sqlite3.OperationalError as error:
                remedy = "see that the folder can be written and no process holds it"
                raise LineageError(f"{file}: cannot be used: {error}", remedy) from error
            except sqlite3.DatabaseError:
                for suffix in ("", "-wal", "-shm"):
                    file.with_name(file.name + suffix).unlink(missing_ok=True)
                self._check()
                self.say(f"{file} was damaged; made anew from the folders")

    def say(self, note: str) -> None:
        """Add a note, once."""
        if note not in self.notes:
            self.notes.append(note)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A transaction that others wait for; connections are short, so forks and threads share none."""
        with closing(sqlite3.connect(self.file, timeout=60, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    def _check(self) -> None:
        with closing(sqlite3.connect(self.file, timeout=60)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        with self._open() as connection:
            layout = connection.execute("PRAGMA user_version").fetchone()[0]
            if connection.execute("PRAGMA quick_check").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("quick_check")
            if layout != LAYOUT:
                for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                    connection.execute(f'DROP TABLE "{table}"')
                for statement in filter(str.strip, TABLES.split(";")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {LAYOUT}")

    def _look(self) -> dict[tuple[str, int], Path]:
        found = {}
        for path in self.artefacts.glob(f"*/*/{RECORD}"):
            name, version = path.parts[-3:-1]
            if version.isdigit() and not name.startswith(PREFIX):
                found[name, int(version)] = path
        return found

    def records(self) -> list[Record]:
        """Every published artefact, oldest version first within a name; the rows are brought up to date with the folders before."""
        found = self._look()
        with self._open() as connection:
            rows = {(n, v): s for n, v, s in connection.execute("SELECT name, version, stamp FROM artefacts")}
            connection.executemany("DELETE FROM artefacts WHERE name = ? AND version = ?", [key for key in rows if key not in found])
            for (name, version), path in found.items():
                try:
                    now = stamp(path.stat())
                    if rows.get((name, version)) == now:
                        continue
                    record = read_record(path.parent)
                    if (record.name, record.version) != (name, version):
                        raise LineageError(f"{path}: is the record of {record.reference}", "give the folder its old name back")
                except FileNotFoundError:  # removed by another process since we looked
                    continue
                except LineageError as error:
                    connection.execute("DELETE FROM artefacts WHERE name = ? AND version = ?", (name, version))
                    self.say(f"left out: {error}")
                    continue
                values = (name, version, now, record.model_dump_json())
                connection.execute("INSERT OR REPLACE INTO artefacts VALUES (?, ?, ?, ?)", values)
            texts = connection.execute("SELECT record FROM artefacts ORDER BY name, version").fetchall()
        return [Record.model_validate_json(text) for (text,) in texts]

    def known_hash(self, path: Path) -> str | None:
        """The remembered sha256 of a file that has not changed since."""
        with self._open() as connection:
            row = connection.execute("SELECT stamp, sha256 FROM hashes WHERE path = ?", (os.path.realpath(path),)).fetchone()
        return row[1] if row and row[0] == stamp(path.stat()) else None

    def remember_hash(self, path: Path, before: os.stat_result, sha256: str) -> None:
        """Remember the sha256 of a file, unless it changed meanwhile or a moment ago."""
        if stamp(before) == stamp(path.stat()) and time.time_ns() - before.st_mtime_ns > SETTLED:
            with self._open() as connection:
                connection.execute("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?)", (os.path.realpath(path), stamp(before), sha256))
