"""Which rows do the files hold? Plain dicts with their row numbers; a row that cannot be read says so in its place."""

import csv
import io
import json
import lzma
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from etude.data.locate import CODE, TEXTS, File
from etude.data.records import RowError
from etude.errors import DataError

UNREADABLE = "unreadable rows"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table, one line, or one document."""

    source: str
    """The file, as the user called it."""
    number: int
    """From 1: the line in a JSONL file, the data row (without the header) in a table, the place in a JSON list, 1 for a document."""
    values: dict[str, Any] | RowError
    """Columns by name, or why there are none."""


def read(file: File) -> Iterator[Row]:
    """The rows of one file in their order. DataError where the file as a whole is damaged."""
    if file.size == 0:
        raise DataError(f"{file.name}: the file is empty", "give a file with at least one row")
    if file.suffix in TEXTS + CODE:
        return iter([Row(file.name, 1, {"text": _decoded(_whole(file), file)})])
    readers = {".json": _document, ".csv": _table, ".tsv": _table, ".parquet": _parquet}
    return readers.get(file.suffix, _lines)(file)


def hub(path: str, split: str) -> Iterator[Row]:
    """The rows of `hub:owner/name[:config]`, through the `datasets` library. DataError where it is missing or cannot reach the data."""
    name, config = _on_hub(path)
    try:
        import datasets  # noqa: PLC0415
    except ImportError:
        raise DataError(f"{path}: reading from the hub needs the `datasets` library", "install it with `uv sync --extra hub`") from None
    try:
        table = datasets.load_dataset(name, config, split=split)
        for number, values in enumerate(table, 1):
            yield Row(path, number, dict(values))
    except Exception as error:  # the library lets through whatever its network layers raise
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"{path}: cannot be loaded (split {split!r}): {type(error).__name__}: {reason}",
            "check the name, the split and the network; offline, give the path of a downloaded file instead",
        ) from error


def hub_revision(path: str) -> str | None:
    """The commit at which a data set of the hub is now; None where the hub cannot be asked."""
    try:
        from huggingface_hub import HfApi  # noqa: PLC0415 (a heavy import)

        return HfApi().dataset_info(_on_hub(path)[0]).sha
    except Exception:  # noqa: BLE001 (whatever its network layers raise)
        return None


def _on_hub(path: str) -> tuple[str, str | None]:
    """Name and configuration."""
    name, _, config = path.removeprefix("hub:").partition(":")
    return name, config or None


def _open(file: File) -> IO[bytes]:
    if file.compression is None:
        return file.open()
    if file.compression == "xz":
        return lzma.open(file.open())
    import pyarrow as pa  # noqa: PLC0415

    if file.url is None:
        return io.BufferedReader(pa.input_stream(str(file.path), compression=file.compression))  # type: ignore[arg-type]
    return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file.open(), "r"), file.compression))  # type: ignore[arg-type]


def _damaged(file: File, error: Exception) -> DataError:
    return DataError(f"{file.name}: the file is damaged or cut off: {error}", "fetch or write it again")


def _whole(file: File) -> bytes:
    try:
        with _open(file) as stream:
            return stream.read()
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise _damaged(file, error) from error


def _decoded(raw: bytes, file: File) -> str:
    _refuse_utf16(raw, file)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{file.name}:{line}: not UTF-8: byte 0x{raw[error.start]:02x}", "save the file as UTF-8") from error


def _refuse_utf16(start: bytes, file: File) -> None:
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{file.name}: is UTF-16, not UTF-8", "save the file as UTF-8")


def _lines(file: File) -> Iterator[Row]:
    try:
        with _open(file) as stream:
            for number, raw in enumerate(stream, 1):
                if number == 1:
                    _refuse_utf16(raw, file)
                    raw = raw.removeprefix(b"\xef\xbb\xbf")
                if raw.strip():  # a blank line is no row
                    yield Row(file.name, number, _line(raw))
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise _damaged(file, error) from error


def _line(raw: bytes) -> dict[str, Any] | RowError:
    try:
        return _values(json.loads(raw.decode("utf-8")))
    except UnicodeDecodeError as error:
        return RowError(UNREADABLE, f"not UTF-8: byte 0x{raw[error.start]:02x} at {error.start}", "save the file as UTF-8")
    except json.JSONDecodeError as error:
        return RowError(UNREADABLE, f"not JSON: {error.msg} at column {error.colno}", "write one JSON object on each line")
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, nesting without end
        return RowError(UNREADABLE, f"not JSON that can be read: {error}", "write one JSON object on each line")


def _values(value: object) -> dict[str, Any] | RowError:
    if isinstance(value, dict):
        return value
    if isinstance(value, str):
        return {"text": value}
    return RowError(UNREADABLE, f"a {type(value).__name__} where an object with columns is needed", "write one JSON object for each row")


def _document(file: File) -> Iterator[Row]:
    text = _decoded(_whole(file), file)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and isinstance(_line(text.lstrip().partition("\n")[0].encode()), dict):
            yield from _lines(file)  # JSON lines under the wrong ending
            return
        where = f"{file.name}:{error.lineno}:{error.colno}"
        raise DataError(f"{where}: not JSON: {error.msg}", "mend the file, or write it as .jsonl") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file.name}: not JSON that can be read: {error}", "mend the file, or write it as .jsonl") from error
    if isinstance(value, dict):
        lists = [key for key, inside in value.items() if isinstance(inside, list)]
        if len(lists) != 1:
            raise DataError(
                f"{file.name}: an object with {len(lists)} lists ({', '.join(map(repr, lists[:5]))}) where one list of rows is needed",
                "write a list of rows, or an object with that list alone",
            )
        value = value[lists[0]]
    if not isinstance(value, list):
        raise DataError(f"{file.name}: a {type(value).__name__} where a list of rows is needed", "write a list of objects")
    for number, row in enumerate(value, 1):
        yield Row(file.name, number, _values(row))


def _table(file: File) -> Iterator[Row]:
    """Cells are text as they stand; a column whose every cell is a whole number in its shortest spelling is read as numbers."""
    csv.field_size_limit(sys.maxsize)
    delimiter = "\t" if file.suffix == ".tsv" else ","
    reader = csv.reader(io.StringIO(_decoded(_whole(file), file), newline=""), delimiter=delimiter, strict=True)
    try:
        header, *rows = [cells for cells in reader if cells] or [[]]
    except csv.Error as error:
        where = f"{file.name}:{reader.line_num}"
        raise DataError(f"{where}: not a well-formed table: {error}", "quote cells that hold quotes or line breaks") from error
    if not header or len(set(header)) < len(header):
        raise DataError(
            f"{file.name}: two columns have one name, or none has: {', '.join(header)}", "name each column once, in the first line"
        )
    if len(header) == 1 and ";" in header[0]:
        raise DataError(f"{file.name}: one column called {header[0]!r}", "separate cells by commas, not semicolons")
    whole = [len(cells) == len(header) for cells in rows]
    numeric = [_all_whole_numbers(cells[i] for cells, fits in zip(rows, whole) if fits) for i in range(len(header))]
    for number, (cells, fits) in enumerate(zip(rows, whole), 1):
        if fits:
            values = {name: int(cell) if counted and cell else cell for name, cell, counted in zip(header, cells, numeric)}
        else:
            values = RowError(
                UNREADABLE, f"{len(cells)} cells under {len(header)} columns", "quote cells that hold separators or line breaks"
            )
        yield Row(file.name, number, values)


def _all_whole_numbers(cells: Iterator[str]) -> bool:
    """Blank cells do not count, but one number must be there; `007`, `+1` and numbers beyond 18 digits stay text."""
    found = False
    for cell in cells:
        if cell:
            digits = cell.removeprefix("-")
            if not (digits.isascii() and digits.isdigit() and len(digits) <= 18 and (digits == "0" or digits[0] != "0") and cell != "-0"):
                return False
            found = True
    return found


def _parquet(file: File) -> Iterator[Row]:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    number = 0
    try:
        table = pq.ParquetFile(pa.BufferReader(_whole(file)) if file.compression else file.open())
        for batch in table.iter_batches(batch_size=1024):
            for values in batch.to_pylist():
                number += 1
                yield Row(file.name, number, values)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(file, error) from error
