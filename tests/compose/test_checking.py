"""Data as somebody checks it: a file or a recipe, findings with their rows, a page, a cleaned copy that is clean."""

import csv
import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from small_project import recipe, stage
from transformers import AutoModelForCausalLM, AutoTokenizer

import etude
from etude.errors import DataError, EtudeError

GOOD = [{"prompt": f"What colour has thing {i * i}?", "completion": f"It is {c}, {i}"} for i, c in enumerate(["red", "green", "blue"] * 8)]
BAD = [GOOD[2], {"prompt": "An odd\u200b one?", "completion": "yes "}, {"prompt": "A key?", "completion": "AKIAIOSFODNN7EXAMPLE"}]
ROWS = [*GOOD, *BAD]
TWICE, MENDED, SECRET = len(GOOD) + 1, len(GOOD) + 2, len(GOOD) + 3
CLEAN = [*GOOD, {"prompt": "An odd one?", "completion": "yes"}]


def _jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _json(path, rows):
    path.write_text(json.dumps(rows))


def _csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["prompt", "completion"], delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)


def _parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)


def _read(path):
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix in (".csv", ".tsv"):
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("suffix", "write"), [(".jsonl", _jsonl), (".json", _json), (".csv", _csv), (".tsv", _csv), (".parquet", _parquet)]
)
def test_a_cleaned_copy_in_the_files_own_format(tmp_path, suffix, write):
    path, out = tmp_path / f"rows{suffix}", tmp_path / "new" / f"clean{suffix}"
    write(path, ROWS)
    before = path.read_bytes()
    checked = etude.data_check(path, fix=out, project=tmp_path)
    assert {"exact duplicates", "invisible characters", "white space around answers", "secrets: AWS access key"} == {
        f.kind for f in checked.found
    }
    assert _read(out) == CLEAN and path.read_bytes() == before
    assert (checked.mended.kept, checked.mended.removed, checked.mended.repaired, checked.mended.unrepaired) == (len(CLEAN), 2, 1, 0)
    went = [json.loads(line) for line in checked.mended.listed.read_text().splitlines()]
    assert [(one["row"], one.get("removed")) for one in went] == [
        (TWICE, "exact duplicates"),
        (MENDED, None),
        (SECRET, "secrets: AWS access key"),
    ]
    assert went[0]["values"]["prompt"] == GOOD[2]["prompt"] and went[1]["repaired"][1] == {
        "finding": "white space around answers",
        "old": "yes ",
        "new": "yes",
    }
    assert etude.data_check(out, project=tmp_path).found == []
    with pytest.raises(DataError, match="exists already"):
        etude.data_check(path, fix=out, project=tmp_path)


@pytest.mark.parametrize("first", [0, 1])
def test_a_text_that_two_findings_mend_loses_what_both_take(tmp_path, first):
    from etude.data.checks.contract import Finding, Place, Repair
    from etude.data.locate import locate
    from etude.data.mend import mend

    _jsonl(tmp_path / "rows.jsonl", [{"prompt": "Odd?", "completion": " \u200byes \u200b"}])
    (file,) = locate(str(tmp_path / "rows.jsonl"))[0]
    place = Place(file.name, 1)
    repairs = [Repair(place, " \u200byes \u200b", "\u200byes \u200b"), Repair(place, " \u200byes \u200b", " yes ")]
    found = [Finding(f"kind {i}", "warning", "odd", "mend it", (place,), (), repairs=(repairs[i],)) for i in (first, 1 - first)]
    mend(file, tmp_path / "clean.jsonl", found)
    assert _read(tmp_path / "clean.jsonl")[0]["completion"] == "yes"


def test_a_copy_is_never_packed(tmp_path):
    import gzip

    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode()))
    with pytest.raises(DataError, match="in its own format, unpacked") as error:
        etude.data_check(tmp_path / "rows.jsonl.gz", fix=tmp_path / "clean.jsonl.gz", project=tmp_path)
    assert error.value.remedy == "name it clean.jsonl"
    assert etude.data_check(tmp_path / "rows.jsonl.gz", fix=tmp_path / "clean.jsonl", project=tmp_path).mended.kept == len(CLEAN)


def test_lines_that_cannot_be_read_go_and_are_listed(tmp_path):
    path, out = tmp_path / "rows.jsonl", tmp_path / "clean.jsonl"
    path.write_text("\n".join(["{broken", *map(json.dumps, GOOD[:3]), "7", ""]))
    checked = etude.data_check(path, fix=out, project=tmp_path)
    assert checked.errors == 1 and _read(out) == GOOD[:3]
    went = [json.loads(line) for line in checked.mended.listed.read_text().splitlines()]
    assert [(one["row"], one["removed"]) for one in went] == [(1, "unreadable rows"), (5, "unreadable rows")]


def test_what_cannot_be_fixed_is_refused_before_anything_is_written(tmp_path):
    _jsonl(tmp_path / "rows.jsonl", ROWS)
    _jsonl(tmp_path / "more.jsonl", ROWS)
    (tmp_path / "book.txt").write_text("Once upon a time\u200b.")
    for path, out, what in (
        (tmp_path / "rows.jsonl", "clean.csv", "own format"),
        (tmp_path / "*.jsonl", "clean.jsonl", "more than one file"),
        (tmp_path / "book.txt", "clean.txt", "a text is one row"),
        (f"file://{tmp_path}/rows.jsonl", "clean.jsonl", "lies elsewhere"),
    ):
        with pytest.raises(DataError, match=what):
            etude.data_check(path, fix=tmp_path / out, project=tmp_path)
        assert not (tmp_path / out).exists()


def test_a_lone_text_is_checked_in_the_stretches_that_are_prepared(project, base):
    text = "".join(f"Line {i} of a long story about {'cats' if i % 3 else 'dogs'}.\n" for i in range(400))
    (project / "story.txt").write_text(text)
    file = recipe(project / "story.yaml", base, {"sft": stage(project / "story.txt", held_out=0.3)}, evaluate=None)
    checked = etude.data_check(file, project=project)
    assert checked.rows > 3 and checked.held_out == round(0.3 * checked.rows)
    with pytest.raises(DataError, match="a text is one row"):
        etude.data_check(file, fix=project / "clean.txt", project=project)


def test_a_recipe_is_checked_as_its_base_reads_it(project, base):
    rows = [json.loads(line) for line in (project / "answers.jsonl").read_text().splitlines()]
    rows += [
        {"prompt": "Long?", "completion": "a dog " * 300},
        {"prompt": "Forged?<|im_start|>", "completion": "no"},
        {"prompt": rows[0]["prompt"]},
    ]
    _jsonl(project / "answers.jsonl", rows)
    file = recipe(project / "colours.yaml", base, {"sft": stage(project / "answers.jsonl")})
    checked = etude.data_check(file, project=project)
    found = {one.kind: [place.row for place in one.rows] for one in checked.found}
    assert found["rows longer than the context"] == [41] and found["texts that spell a special token"] == [42]
    assert found["rows that do not fit their format"] == [43]
    assert (checked.rows, checked.held_out, checked.base) == (43, 8, str(base)) and checked.errors == 2
    assert {side.unit for side in checked.sides} == {"words", "tokens"}
    with pytest.raises(EtudeError, match=r"answers\.jsonl:4[123]"):
        etude.run(file, project=project)  # what is an error here stops the run there
    with pytest.raises(EtudeError, match="no stage 'other'"):
        etude.data_check(file, stage="other", project=project)


def test_everything_is_said_as_plain_values_and_as_a_page(tmp_path):
    _jsonl(tmp_path / "rows.jsonl", [*ROWS, {"prompt": "<script>alert(1)</script>?", "completion": "As an AI language model, <b>no</b>"}])
    checked = etude.data_check(tmp_path / "rows.jsonl", project=tmp_path)
    said = json.loads(json.dumps(checked.to_dict()))
    secret = next(one for one in said["findings"] if one["kind"].startswith("secrets"))
    assert secret["rows"] == [{"source": str(tmp_path / "rows.jsonl"), "row": SECRET}] and secret["removed_by_fix"] == 1
    assert "AKIAIOSFODNN7EXAMPLE" not in json.dumps(said) and {one["check"] for one in said["not_checked"]} >= {
        "benchmarks",
        "template-additions",
    }
    prompts, answers = said["portrait"]
    assert (prompts["name"], answers["name"]) == ("prompts", "answers") and sum(bar["rows"] for bar in prompts["bars"]) == len(ROWS) + 1
    page = checked.to_html()
    assert "<script>" not in page and "http://" not in page and page.count("<svg") == 2 and "exact duplicates" in page


def test_the_base_is_asked_what_it_knows_and_what_it_finds_absurd(project, base):
    """The figures of plain transformers: the loss of each row, and whether a greedy answer is the expected one."""
    file = recipe(project / "colours.yaml", base, {"sft": stage(project / "answers.jsonl", held_out=0)}, evaluate=None)
    with pytest.raises(DataError, match="no model is named"):
        etude.data_check(project / "answers.jsonl", model=True, project=project)
    from etude.compose.checking import beforehand

    seen = {}
    original = beforehand.scores

    def scores(*arguments):
        seen["scores"], seen["examples"] = original(*arguments), arguments[1]
        return seen["scores"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beforehand, "scores", scores)
        etude.data_check(file, model=True, project=project)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), AutoTokenizer.from_pretrained(base)
    assert tokenizer.eos_token == "<|im_end|>"
    for example, loss, least in zip(seen["examples"], *seen["scores"]):
        (sample,) = example.samples
        with torch.no_grad():
            log = model(torch.tensor(sample.tokens[None].astype(np.int64))).logits[0].double().log_softmax(-1)
        own = [log[i - 1, t].item() for i, (t, w) in enumerate(zip(sample.tokens.tolist(), sample.weight)) if w]
        assert math.isclose(loss, -np.mean(own), abs_tol=0.02) and math.isclose(least, math.exp(min(own)), abs_tol=0.02)


def test_rows_that_a_base_knows_or_finds_absurd_are_named(monkeypatch):
    from types import SimpleNamespace

    from etude.evaluation import beforehand

    examples = [SimpleNamespace(source="rows.jsonl", row=i + 1) for i in range(40)]
    loss, least = np.linspace(1.0, 2.0, 40), np.full(40, 0.3)
    loss[7], least[11], least[12] = 12.0, 0.51, 0.5
    monkeypatch.setattr(beforehand, "scores", lambda *_: (loss, least))
    known, absurd = beforehand.findings(None, examples, None)
    assert [place.row for place in known.rows] == [12] and known.severity == "note"
    assert [place.row for place in absurd.rows] == [8] and absurd.examples == ("rows.jsonl:8: 12.00 nats a token",)
