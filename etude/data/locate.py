"""Which files does a source's path stand for? A file, a folder, a glob, a URL, or a file inside an installed Python package."""

import glob
import re
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from etude.core.packaged import packaged_file
from etude.errors import DataError

TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
TEXTS = (".txt", ".text", ".md", ".markdown")
CODE = (".py",)
"""Read as text where they are asked for by name or pattern; in a folder of data they are passed over."""
LIBRARY = "python:library"
_NOT_LIBRARY = {"test", "tests", "idle_test", "site-packages", "dist-packages", "pydoc_data", "encodings", "__pycache__"}
"""Folders of the standard library that are left out: tests, what was installed later, the text that `evaluate.keep` reads, tables."""
COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}


@dataclass(frozen=True, slots=True)
class File:
    """One file, and the name by which messages and counts call it."""

    path: Path
    name: str
    url: str | None = None
    """Where it lies elsewhere: opened through fsspec."""

    @property
    def place(self) -> str:
        """What `at_place` finds it by again."""
        return self.url or str(self.path)

    @property
    def size(self) -> int | None:
        """Bytes; None where the place does not tell. DataError where it cannot be reached."""
        if self.url is None:
            return self.path.stat().st_size
        told = _info(self.url).get("size")
        return None if told is None else int(told)

    def open(self) -> IO[bytes]:
        """Its bytes as they lie there."""
        if self.url is None:
            return self.path.open("rb")
        import fsspec  # noqa: PLC0415 (needed for URLs alone)

        return fsspec.open(self.url, "rb").open()  # type: ignore[union-attr]

    def changed(self) -> str:
        """What the place tells of its content without sending it: time, tag; empty where it tells neither."""
        known = _info(self.place)
        return " ".join(f"{key}={known[key]}" for key in _TELLING if known.get(key) is not None)

    @property
    def kind(self) -> str:
        """Its endings: how it is read."""
        return self.suffix + (self.path.suffix.lower() if self.compression else "")

    @property
    def compression(self) -> str | None:
        return COMPRESSED.get(self.path.suffix.lower())

    @property
    def suffix(self) -> str:
        """What the file holds once it is unpacked."""
        path = self.path.with_suffix("") if self.compression else self.path
        return path.suffix.lower()


_TELLING = (
    "ETag", "etag", "Last-Modified", "LastModified", "last_modified", "mtime", "created", "Content-MD5", "Digest", "md5Hash", "sha256",
)  # fmt: skip
"""What file systems call the tag and the time of a file's content."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def at_place(place: str, name: str) -> File:
    """The file that `File.place` called so."""
    return File(Path(place.partition("://")[2].partition("?")[0]), name, place) if _URL.match(place) else File(Path(place), name)


def locate(path: str) -> tuple[list[File], list[str]]:
    """Files in a fixed order, and a line for each thing that was passed over. DataError where nothing is found."""
    if _URL.match(path):
        return _elsewhere(path)
    if path.startswith("corpus:"):
        remedy = "name the text itself here; a newborn's `base.tokenizer` can be the corpus's own"
        raise DataError(f"{path}: a corpus is tokens already, which stages read and nobody else", remedy)
    if path.startswith("package:"):
        return [_known(File(packaged_file(path, DataError), path))], []
    if path.startswith("python:"):
        return _library(path)
    place = Path(path).expanduser()
    if place.is_dir():
        return _in_folder(place, path)
    if place.is_file():
        return [_known(File(place, path))], []
    if glob.has_magic(path):
        found = [File(Path(name), name) for name in sorted(glob.glob(str(place), recursive=True)) if Path(name).is_file()]
        if not found:
            raise DataError(f"{path}: no file matches", f"look at the pattern; it was read from {Path.cwd()}")
        return [_known(file) for file in found], []
    raise DataError(f"{path}: no such file or folder", f"give a path that exists, seen from {Path.cwd()}, `package:…` or `hub:…`")


def _library(path: str) -> tuple[list[File], list[str]]:
    """The sources of Python's own standard library, as they are installed here, called by their modules' places."""
    if path != LIBRARY:
        raise DataError(f"{path}: only `{LIBRARY}` is known", "name the files themselves by a pattern, such as `src/**/*.py`")
    folder = Path(sysconfig.get_path("stdlib"))
    inside = sorted(p.relative_to(folder) for p in folder.rglob("*.py") if not _NOT_LIBRARY & set(p.relative_to(folder).parts))
    files = [File(folder / p, f"{LIBRARY}/{p.as_posix()}") for p in inside if (folder / p).stat().st_size]
    if not files:
        raise DataError(f"{path}: no source is installed in {folder}", "take a Python that comes with its sources, or text of your own")
    said = f"the standard library of Python {sysconfig.get_python_version()}: {len(files)} modules"
    return files, [f"{said}, without tests, tables of encodings and pydoc's texts"]


def _info(url: str) -> dict[str, Any]:
    system, inside = _system(url)
    try:
        return system.info(inside)
    except Exception as error:  # each file system raises its own
        raise _unreachable(url, error) from error


def _system(url: str) -> tuple[Any, str]:
    """The file system that a URL names, and the path inside it."""
    import fsspec  # noqa: PLC0415 (needed for URLs alone)

    try:
        return fsspec.url_to_fs(url)
    except (ImportError, ValueError) as error:  # it says which package reads such URLs
        raise DataError(f"{url}: {error}", "install the package that reads such URLs, such as s3fs, gcsfs or adlfs") from error


def _unreachable(url: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:200]
    return DataError(f"{url}: cannot be reached: {type(error).__name__}: {reason}", "check the address, the network and your credentials")


def _elsewhere(url: str) -> tuple[list[File], list[str]]:
    """Files behind a URL: one, those that a pattern names, or those below a folder."""
    system, inside = _system(url)
    try:
        if glob.has_magic(inside):
            found = system.glob(inside)
        elif system.isfile(inside):
            found = [inside]
        else:
            found = system.find(inside)
        urls = sorted(system.unstrip_protocol(one) for one in found)
    except Exception as error:  # each file system raises its own
        raise _unreachable(url, error) from error
    files = [at_place(one, one) for one in urls]
    readable = [file for file in files if file.suffix in TABLES + TEXTS]
    if not readable:
        raise DataError(f"{url}: nothing there that can be read", f"it should name files ending in {', '.join(TABLES + TEXTS)}")
    left = len(files) - len(readable)
    return readable, [f"{url}: passed over {left} files of other kinds"] if left else []


def _known(file: File) -> File:
    if file.suffix not in TABLES + TEXTS + CODE:
        raise DataError(
            f"{file.name}: {file.suffix or 'a file without an ending'} is not a kind of file that can be read",
            f"convert it to one of {', '.join(TABLES + TEXTS + CODE)}, plain or packed as {', '.join(COMPRESSED)}",
        )
    return file


def _in_folder(folder: Path, name: str) -> tuple[list[File], list[str]]:
    inside = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    shown = [p for p in inside if not any(part.startswith(".") for part in p.parts)]
    files = [File(folder / p, f"{name.rstrip('/')}/{p.as_posix()}") for p in shown]
    tables = [file for file in files if file.suffix in TABLES]
    texts = [file for file in files if file.suffix in TEXTS]
    if tables and texts:
        raise DataError(
            f"{name}: holds tables ({tables[0].path.name}) and plain text ({texts[0].path.name})",
            f"name one kind: `{name}/*{tables[0].path.suffix}`",
        )
    if not tables and not texts:
        raise DataError(f"{name}: no file in this folder can be read", f"it should hold files ending in {', '.join(TABLES + TEXTS)}")
    left = [file.path.name for file in files if file not in tables and file not in texts]
    notes = [f"{name}: passed over {len(left)} files of other kinds ({', '.join(left[:3])}{' …' if len(left) > 3 else ''})"] if left else []
    return tables or texts, notes
