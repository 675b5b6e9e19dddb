from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from etude.lineage.fingerprint import fingerprint
from etude.lineage.record import Draft, Fingerprints, Parent
from etude.lineage.store import Store
from etude.lineage.surroundings import machine_here, versions_here

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / ".etude")


@pytest.fixture
def draft():
    def make(name: str = "sentiment", parent: Parent | None = None, minutes: int = 0, **changes) -> Draft:
        base = Parent(kind="base", reference="hub:owner/model", fingerprint=fingerprint({"base": 1}))
        fields = dict(
            name=name,
            kind="adapter",
            identity=fingerprint({"name": name, "minutes": minutes}),
            parent=parent or base,
            stage="only",
            recipe={"name": name, "base": "hub:owner/model", "stages": {}},
            fingerprints=Fingerprints(data=fingerprint({"d": 1}), base=base.fingerprint, stage=fingerprint({"s": 1})),
            versions=versions_here(),
            seed=0,
            machine=machine_here("cpu", threads=1),
            metrics={"loss": 0.25},
            counts={"rows": 10},
            started=START,
            finished=START + timedelta(minutes=minutes),
        )
        return Draft(**{**fields, **changes})

    return make


@pytest.fixture
def write():
    def weights(content: str = "weights"):
        def into(folder: Path) -> None:
            (folder / "adapter_model.safetensors").write_text(content)
            (folder / "adapter_config.json").write_text("{}")

        return into

    return weights
