import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from safetensors import SafetensorError

from etude.errors import LineageError
from etude.lineage.durable import new_aside
from etude.lineage.fingerprint import RECORD, fingerprint
from etude.lineage.project import find_project
from etude.lineage.store import Store, open_store


def test_versions_count_up_and_names_resolve(store, draft, write):
    for minute in range(3):
        record = store.publish(draft(minutes=minute), write(str(minute)))
        assert record.reference == f"sentiment@{minute + 1}"
    assert store.resolve("sentiment").version == store.resolve("sentiment@newest").version == 3
    assert store.resolve("sentiment@2").metrics == {"loss": 0.25}
    assert [r.version for r in store.records()] == [3, 2, 1]
    assert (store.folder(store.resolve("sentiment@2")) / "adapter_model.safetensors").read_text() == "1"


def test_the_record_beside_the_weights_is_the_record(store, draft, write):
    record = store.publish(draft(), write())
    written = json.loads((store.folder(record) / RECORD).read_text())
    assert list(written)[:3] == ["format", "name", "version"]
    assert written["files"]["adapter_config.json"] == {"sha256": hashlib.sha256(b"{}").hexdigest(), "bytes": 2}
    assert store.resolve("sentiment") == record
    assert "torch" in record.versions and record.machine.cores >= 1


@pytest.mark.parametrize(
    ("reference", "suggested"),
    [("sentimant", "sentiment"), ("sentiment@7", "sentiment@1, sentiment@live"), ("sentiment@prod", "@live"), ("zzz", "sentiment")],
)
def test_an_unknown_reference_suggests_the_near_ones(store, draft, write, reference, suggested):
    store.publish(draft(), write())
    store.set_alias("sentiment", "live")
    with pytest.raises(LineageError) as error:
        store.resolve(reference)
    assert suggested in error.value.remedy


def test_an_unchanged_stage_is_found_and_a_damaged_one_passed_over(store, draft, write):
    record = store.publish(draft(), write())
    assert store.find(record.identity) == record
    assert store.find(fingerprint({"other": 1})) is None
    (store.folder(record) / "adapter_model.safetensors").write_text("cut")
    assert store.find(record.identity) is None
    assert any("3 bytes instead of 7" in note for note in store.notes)


def test_verify_reads_every_byte(store, draft, write):
    record = store.publish(draft(), write())
    assert store.verify("sentiment") == []
    (store.folder(record) / "adapter_model.safetensors").write_text("weighty"[::-1])
    (store.folder(record) / "stray").write_text("")
    (store.folder(record) / "adapter_config.json").unlink()
    assert [p.split()[-1] for p in store.verify("sentiment")] == ["missing", "published", "later"]


def test_a_failed_write_leaves_nothing(store, draft, write):
    def fails(folder: Path) -> None:
        write()(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(LineageError, match="No space left"):
        store.publish(draft(), fails)
    with pytest.raises(LineageError, match=r"metrics\.loss: nan"):
        store.publish(draft(metrics={"loss": float("nan")}), write())
    with pytest.raises(LineageError, match="no files"):
        store.publish(draft(), lambda folder: None)
    assert store.records() == []
    assert list((store.artefacts / "sentiment").iterdir()) == []


def test_a_full_disk_is_seen_before_writing_and_while_writing(store, draft, write, monkeypatch):
    def tears(folder: Path) -> None:
        raise SafetensorError("Error while serializing: IoError(No space left on device)")

    with pytest.raises(LineageError, match=r"could not be written.*No space left") as error:
        store.publish(draft(), tears)
    assert "etude clean" in error.value.remedy
    usage = shutil.disk_usage(store.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=70 * 2**20))
    with pytest.raises(LineageError, match=r"no room for sentiment: it needs 8.0 MiB and a margin of 64.0 MiB, .* has 70.0 MiB free"):
        store.publish(draft(), lambda folder: pytest.fail("nothing is written"), room=8 * 2**20)
    assert store.publish(draft(), write(), room=2**20).version == 1


def test_family(store, draft, write):
    one = store.publish(draft("sft"), write("a"))
    two = store.publish(draft("dpo", store.parent("sft"), minutes=1), write("b"))
    three = store.publish(draft("rl", store.parent("dpo@1"), minutes=2), write("c"))
    other = store.publish(draft("kto", store.parent("sft"), minutes=3), write("d"))
    shown = store.show("dpo")
    assert shown.ancestors == [one] and [b.record for b in shown.descendants] == [three]
    assert [b.record for b in store.show("sft").descendants] == [two, other]
    assert two.parent.fingerprint == one.fingerprint != two.fingerprint
    with pytest.raises(LineageError, match=r"sft@1 cannot be removed; on it stand dpo@1, kto@1"):
        store.remove("sft")


def test_the_fingerprint_is_of_what_answers(store, draft, write):
    def with_report(folder: Path) -> None:
        write("a")(folder)
        (folder / "report.html").write_text(str(time.time()))
        (folder / "judgement.json").write_text(str(time.time()))
        (folder / "metrics.jsonl").write_text(str(time.time()))
        (folder / "evaluation").mkdir()
        (folder / "evaluation/answers.json").write_text(str(time.time()))

    one, two = store.publish(draft("one"), write("a")), store.publish(draft("two"), with_report)
    assert one.fingerprint == two.fingerprint
    assert store.publish(draft("three"), write("b")).fingerprint != one.fingerprint


def test_aliases_move_and_hold(store, draft, write):
    store.publish(draft(), write())
    store.publish(draft(minutes=1), write())
    store.set_alias("sentiment@1", "production")
    assert store.resolve("sentiment@production").version == 1
    with pytest.raises(LineageError, match="alias sentiment@production"):
        store.remove("sentiment@1")
    store.set_alias("sentiment@2", "production")
    assert store.show("sentiment").aliases == ["production"]
    assert Store(store.root).aliases("sentiment") == {"production": 2}
    for bad in ("7", "newest", "a/b", "", "..", "a@b"):
        with pytest.raises(LineageError, match="cannot be an alias"):
            store.set_alias("sentiment", bad)
    store.remove_alias("sentiment", "production")
    with pytest.raises(LineageError, match="no alias"):
        store.remove_alias("sentiment", "production")


def test_a_removed_version_is_never_given_again(store, draft, write):
    store.publish(draft(), write())
    removed = store.publish(draft(minutes=1), write())
    assert store.remove("sentiment@2") > 0
    assert not store.folder(removed).exists()
    with pytest.raises(LineageError, match="it was removed"):
        store.resolve("sentiment@2")
    assert store.publish(draft(minutes=2), write()).version == 3
    assert json.loads((store.artefacts / "sentiment/removed/2.json").read_text())["metrics"] == {"loss": 0.25}


def test_a_base_is_made_once(store):
    made = []

    def convert(folder: Path) -> None:
        made.append(folder)
        (folder / "config.json").write_text("{}")

    assert store.base("smol", convert) == store.base("smol", convert) == store.bases / "smol"
    assert len(made) == 1 and [p.name for p in store.bases.iterdir()] == ["smol"]


def test_a_project_is_found_from_below_and_made_where_none_is(tmp_path, monkeypatch):
    (tmp_path / "a/b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a")
    store = open_store()
    assert store.root == tmp_path / "a/.etude" and (store.root / ".gitignore").read_text() == "*\n"
    assert find_project(tmp_path / "a/b") == store.root
    monkeypatch.chdir(tmp_path / "a/b")
    assert open_store().root == store.root


@pytest.mark.parametrize("damage", ["missing", "garbage", "cut", "empty"])
def test_the_index_is_made_anew_from_the_folders(store, draft, write, damage):
    for minute in range(40):
        store.publish(draft(minutes=minute), write())
    before = store.records()
    assert len(before) == 40
    file = store.root / "index.sqlite"
    for path in (file.with_name("index.sqlite-wal"), file.with_name("index.sqlite-shm")):
        path.unlink(missing_ok=True)
    if damage == "missing":
        file.unlink()
    elif damage == "garbage":
        file.write_bytes(os.urandom(5000))
    elif damage == "cut":
        os.truncate(file, file.stat().st_size // 2)
    else:
        os.truncate(file, 0)
    again = Store(store.root)
    assert again.records() == before
    assert bool(again.notes) == (damage in ("garbage", "cut"))


def test_the_index_follows_the_folders(store, draft, write):
    store.publish(draft(), write())
    kept = store.publish(draft("other"), write())
    assert len(store.records()) == 2
    shutil.rmtree(store.artefacts / "sentiment")
    assert store.records() == [kept]
    (store.folder(kept) / RECORD).write_text("{}")
    assert store.records() == [] and "record is damaged" in store.notes[0]
    (store.folder(kept) / RECORD).write_text('{"format": 99}')
    assert store.records() == [] and "upgrade etude" in store.notes[-1]


PUBLISH = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from etude.lineage.record import Draft
from etude.lineage.store import Store

store = Store(Path(sys.argv[1]))
draft = Draft.model_validate_json(sys.stdin.read())
def write(folder):
    for part in range(3):
        (folder / f"model-{part}.safetensors").write_bytes(bytes(20_000))
print("ready", flush=True)
for _ in range(int(sys.argv[3])):
    store.publish(draft, write)
"""


def _publisher(store: Store, draft, times: int) -> subprocess.Popen:
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PUBLISH), str(store.root), str(root), str(times)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    process.stdin.write(draft.model_dump_json())
    process.stdin.close()
    return process


def test_two_processes_publish_without_losing_any(store, draft):
    processes = [_publisher(store, draft(), 10) for _ in range(2)]
    assert [p.wait(60) for p in processes] == [0, 0]
    assert sorted(r.version for r in store.records()) == list(range(1, 21))
    assert store.notes == []


def test_killed_while_publishing_nothing_half_is_seen(store, draft):
    seen = 0
    for moment in range(5):
        process = _publisher(store, draft(), 10_000)
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05 + 0.0137 * moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
        again = Store(store.root)
        records = again.records()
        assert len(records) >= seen
        seen = len(records)
        assert not [n for n in again.notes if "half done" not in n], again.notes
        assert not list(store.artefacts.glob("*/.aside-*"))
    assert seen > 5
    folders = [p for p in (store.artefacts / "sentiment").iterdir()]
    assert len(folders) == seen and all(len(list(p.iterdir())) == 4 for p in folders)
    for record in records[:: max(1, seen // 20)]:
        assert store.verify(record.reference) == []


def test_work_in_progress_of_a_living_process_is_left_alone(store, draft, write):
    store.publish(draft(), write())
    ours = new_aside(store.artefacts / "sentiment")
    foreign = store.artefacts / "sentiment/.aside-elsewhere.1.ffff"
    foreign.mkdir()
    gone = ours.with_name(ours.name.replace(str(os.getpid()), "999999999"))
    gone.mkdir()
    again = Store(store.root)
    assert ours.exists() and foreign.exists() and not gone.exists() and len(again.notes) == 1
    os.utime(foreign, (0, 0))
    Store(store.root)
    assert not foreign.exists()
