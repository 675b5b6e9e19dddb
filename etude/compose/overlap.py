"""Was a model trained on what it is judged on? Each artefact keeps short digests of its training rows beside its record."""

from pathlib import Path

import numpy as np

from etude.compose.trial import Trial
from etude.data.prepare import Prepared
from etude.lineage.record import Parent
from etude.lineage.store import Store
from etude.lineage.tree import ancestors

TRAINED_ON = "trained_on.npy"
"""[distinct training rows] uint64, sorted."""


def keep(prepared: Prepared, folder: Path) -> None:
    """Write down what a stage trains on."""
    np.save(folder / TRAINED_ON, prepared.trained_on, allow_pickle=False)


def overlaps(trial: Trial, prepared: Prepared, model: Parent, store: Store) -> list[str]:
    """A sentence for each artefact, `model` itself and those that it stands on, that was trained on rows of the trial.

    A row counts where its prompt was trained on, whatever was answered; a text, where the same text was, however it was cut.
    """
    if model.kind != "artefact":
        return []
    judged = {(one.source, one.row) for one in (*trial.held_out, *trial.questions)}
    asked = np.array([prepared.asked[place] for place in sorted(judged)], np.uint64)
    record, found = store.resolve(model.reference), []
    for one in (record, *ancestors(record, store.records())):
        file = store.folder(one) / TRAINED_ON
        if not file.exists():
            found.append(f"{one.reference} kept no list of what it was trained on, so it may have been trained on rows judged here.")
            continue
        seen = int(np.isin(asked, np.load(file, allow_pickle=False)).sum())
        if seen:
            found.append(
                f"Not unseen: {seen} of the {len(asked)} rows judged here were trained on when {one.reference} was made "
                "(the same prompt or text). What it knows of them, it may know by heart: hold out the same rows in every stage "
                "(one file, one `train.seed`), or a source of its own."
            )
    return found
