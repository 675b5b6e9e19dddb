"""Where answers are labels: are some of them rare, spelt in two ways, or wrong?"""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from etude.data.checks.contract import INSTALL, Finding, Skipped, excerpt, first, rows
from etude.data.checks.material import FEWEST_PER_LABEL, Material

ONE_SIDED = 0.9
"""Share of one label from which always saying it looks good."""
RARE = 0.01
LEAST_ROWS, MOST_ROWS = 100, 50_000
FOLDS = 5
LOOKED_AT = 1000
"""Characters of a text."""
SURE = 0.9
"""Out-of-fold accuracy below which the texts do not tell their labels well enough to doubt a single one."""


def balance(material: Material) -> Iterator[Finding]:
    """One label on nearly all rows, or labels on hardly any."""
    sizes = _sizes(material)
    total = sum(sizes.values())
    shown = ", ".join(f"{label!r} {count:,}" for label, count in sorted(sizes.items(), key=lambda one: -one[1])[:6])
    if sizes and max(sizes.values()) > ONE_SIDED * total and total >= LEAST_ROWS:
        label = max(sizes, key=lambda one: sizes[one])
        only = len(sizes) == 1
        yield Finding(
            "label imbalance",
            "error" if only else "warning",
            f"{sizes[label]:,} of {rows(total)} with the answer {excerpt(label)!r}: " + ("there is nothing to tell" if only else shown),
            "give rows of other answers; judge by macro-F1, since accuracy would look good for always saying it",
        )
    rare = {label for label, count in sizes.items() if count < max(FEWEST_PER_LABEL, RARE * total)}
    if rare and total >= LEAST_ROWS:
        places = tuple(e.place for answer, entries in material.labels.items() if answer.strip().casefold() in rare for e in entries)
        yield Finding(
            "rare labels",
            "warning",
            f"{len(rare):,} answers are on hardly any rows: {shown}",
            "find out whether they are slips of another label; give more rows of those that are not, or leave them out",
            places,
            first(repr(label) for label in sorted(rare)),
        )


def spellings(material: Material) -> Iterator[Finding]:
    """One label in two spellings: `Positive` and `positive`."""
    groups: dict[str, list[str]] = defaultdict(list)
    for answer in material.labels:
        groups["".join(c for c in answer.casefold() if c.isalnum())].append(answer)
    for same in groups.values():
        if len(same) > 1:
            often = max(same, key=lambda answer: len(material.labels[answer]))
            others = [answer for answer in same if answer != often]
            places = tuple(entry.place for answer in others for entry in material.labels[answer])
            yield Finding(
                "one label in several spellings",
                "warning",
                f"{rows(len(places), 'write')} {', '.join(map(repr, others))} where {rows(len(material.labels[often]), 'write')} {often!r}",
                f"write {often!r} in all of them",
                places,
            )


def errors(material: Material) -> Iterator[Finding]:
    """Labels that the other rows contradict: out-of-fold probabilities of a logistic regression over character sequences.

    A label is doubted where another one is as likely as it usually is on its own rows, and the given one is below that by far.
    Source: confident learning, Northcutt et al. 2021, https://arxiv.org/abs/1911.00068, section 3.
    """
    groups: dict[str, list] = defaultdict(list)
    for answer, entries in material.labels.items():
        groups[answer.strip().casefold()] += entries
    groups = {label: entries for label, entries in groups.items() if len(entries) >= 2 * FOLDS}
    rated = [(label, entry) for label, entries in groups.items() for entry in entries if entry.asked.strip()]
    if len(groups) < 2 or len(rated) < LEAST_ROWS:
        return
    if len(rated) > MOST_ROWS:
        raise Skipped(f"{rows(len(rated))} are too many for a quick model", f"check a part of at most {MOST_ROWS:,} rows (`limit`)")
    names = sorted(groups)
    given = np.array([names.index(label) for label, _ in rated])
    probability = _out_of_fold([material.own(entry)[:LOOKED_AT] for _, entry in rated], given)
    accuracy = float((probability.argmax(1) == given).mean())
    if accuracy < SURE:
        raise Skipped(
            f"a quick model tells {accuracy:.0%} of the labels from the texts, too few to doubt single ones",
            "let two people label a sample, and compare",
        )
    own = probability[np.arange(len(given)), given]
    usual = np.array([own[given == k].mean() for k in range(len(names))])
    reached = np.where(probability >= usual, probability, 0)
    guess = reached.argmax(1)
    doubted = np.flatnonzero((reached.max(1) > 0) & (guess != given) & (own < (1 - usual[given]).clip(0.05, 0.3)))
    if len(doubted):
        doubted = doubted[np.argsort(own[doubted])]
        yield Finding(
            "likely label errors",
            "warning",
            rows(len(doubted), f"have a label that the other rows contradict (a quick model tells {accuracy:.0%} of all labels)"),
            "look at them, the first ones first, and correct those that are wrong",
            tuple(rated[i][1].place for i in doubted),
            first(f"{rated[i][0]!r}, rather {names[guess[i]]!r}: {excerpt(material.own(rated[i][1]))}" for i in doubted),
        )


def _out_of_fold(texts: list[str], given: np.ndarray) -> np.ndarray:
    """[rows, labels] probabilities, each row's from a model that has not seen it."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415 (a heavy extra)
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
        from sklearn.model_selection import StratifiedKFold, cross_val_predict  # noqa: PLC0415
    except ImportError:
        raise Skipped("needs the package scikit-learn", INSTALL) from None
    # A template's words stand in every row, and so weigh nothing. What is counted knows no labels, so it need not be counted by folds.
    counted = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), min_df=2, max_df=0.9, max_features=50_000, sublinear_tf=True)
    features = counted.fit_transform(texts)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    return cross_val_predict(LogisticRegression(C=10, tol=1e-3), features, given, cv=folds, method="predict_proba")


def _sizes(material: Material) -> dict[str, int]:
    sizes: dict[str, int] = defaultdict(int)
    for answer, entries in material.labels.items():
        sizes[answer.strip().casefold()] += len(entries)
    return dict(sizes)
