"""The report and the tables: whole, self-contained, and nothing in a row can become markup."""

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from judged_rows import HOSTILE, ROWS, likelihoods
from rich.console import Console

from etude.evaluation import drawing, figures
from etude.evaluation.judge import judge
from etude.evaluation.judgement import About, Curve, Judgement, Point
from etude.evaluation.metrics.accuracy import Accuracy
from etude.evaluation.report import render_report, write_report
from etude.evaluation.statistics import Interval
from etude.evaluation.table import as_markdown, terminal_table

VOID = {"meta", "col", "input", "line", "rect", "circle", "path"}


class Page(HTMLParser):
    """Fails where tags do not nest; keeps the tags, their attributes and the text."""

    def __init__(self, html: str):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert tag in VOID or self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def judgement(about, answers) -> Judgement:
    return judge(about, likelihoods(-0.5), answers, [Accuracy(field="sentiment")], general=likelihoods(0.4))


@pytest.fixture
def html(judgement) -> str:
    return render_report(judgement)


def test_the_curve_says_what_its_loss_is_counted_in(judgement, html):
    assert "loss, nats a token" in html
    curve = judgement.about.curve.model_copy(update={"unit": "dpo, a pair"})
    other = render_report(judgement.model_copy(update={"about": judgement.about.model_copy(update={"curve": curve})}))
    assert "loss, dpo, a pair" in other and 'data-unit="dpo, a pair"' in other and "loss, nats a token" not in other


def test_the_page_is_whole_and_holds_every_part(html, judgement, tmp_path):
    page = Page(html)
    text = " ".join(" ".join(page.text).split())
    for part in [
        judgement.headline,
        *judgement.warnings,
        "etude chat tuned",
        "2 min 0 s",
        "5\xa0% of 100\xa0k",
        "rows.jsonl:60",
        "2.11 <x>",
    ]:
        assert " ".join(part.split()) in text
    for part in ["KL(parent ‖ tuned)", "not measured", "longer than the context & <i>counted</i>", "McNemar", "name: run"]:
        assert part in text
    assert sum(tag == "article" for tag, _ in page.tags) == ROWS
    assert sum(tag == "svg" for tag, _ in page.tags) == len(judgement.axes) + 1
    assert write_report(judgement, tmp_path / "report.html").read_text(encoding="utf-8") == html


def test_nothing_in_a_row_becomes_markup(html):
    page = Page(html)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 1 and "img" not in tags
    assert HOSTILE in "".join(page.text) and "</pre><script>alert('recipe')</script>" in "".join(page.text)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_the_page_asks_for_nothing_from_outside(html):
    page = Page(html)
    for tag, attributes in page.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base"}
        assert not {"src", "href", "srcset", "xlink:href"} & set(attributes)
    assert "url(" not in html and "@import" not in html
    own = html.replace("http://example.com", "")  # in a row, as text
    assert not re.search(r"https?://", own)
    policy = next(attributes["content"] for tag, attributes in page.tags if attributes.get("http-equiv") == "Content-Security-Policy")
    nonce = next(attributes["nonce"] for tag, attributes in page.tags if tag == "script")
    assert "default-src 'none'" in policy and f"script-src 'nonce-{nonce}'" in policy and len(nonce) >= 32


def test_drawings_are_well_formed(html):
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        ElementTree.fromstring(svg)


def test_a_common_beginning_is_said_once_and_no_prompt_is_shortened_beyond_it(html, judgement, answers):
    assert html.count("Name the sentiment of this sentence as strict JSON.") == 1
    mixed = judge(judgement.about, likelihoods(-0.5), replace(answers, prompts=["other", *answers.prompts[1:]]))
    assert render_report(mixed).count("Name the sentiment of this sentence as strict JSON.") == ROWS - 1


def test_the_least_that_can_be_judged_has_a_report():
    page = Page(render_report(judge(About(parent="a", tuned="b"), likelihoods(0, n=2))))
    assert "article" not in {tag for tag, _ in page.tags}


def test_one_page_for_one_judgement(judgement, html):
    assert render_report(Judgement.from_json(judgement.to_json())) == html


def test_whiskers_lie_where_the_figures_say(judgement):
    accuracy, loss, general = drawing.whiskers(judgement.axes)
    assert accuracy.zero < accuracy.low < accuracy.value < accuracy.high <= drawing.WHISKER_WIDTH
    assert 0 <= loss.low < loss.value < loss.high < loss.zero
    assert general.margin == pytest.approx((general.value - general.zero) * 0.05 / judgement.axes[-1].difference.value, abs=0.2)


def test_the_curve_stays_inside_and_long_ones_are_thinned_to_means():
    curve = Curve(train=[Point(step=step, loss=1.0 + (step % 2)) for step in range(1000)], held_out=[Point(step=999, loss=1.5)])
    chart = drawing.chart(curve)
    assert chart.thinned == 3 and [line.name for line in chart.lines] == ["train", "held out"]
    for line in chart.lines:
        for x, y, _, _ in line.points:
            assert drawing.LEFT <= x <= drawing.CHART_WIDTH - drawing.RIGHT and drawing.TOP <= y <= drawing.CHART_HEIGHT - drawing.BOTTOM
    assert drawing.chart(Curve()) is None
    assert drawing.chart(Curve(held_out=[Point(step=0, loss=0.0)])) is not None


@pytest.mark.parametrize("width", [80, 140])
def test_the_terminal_shows_every_axis_and_interval(judgement, width):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(terminal_table(judgement))
    shown = console.export_text()
    assert judgement.headline.split("(")[0] in shown and "base <b>" in shown and "KL(parent ‖ tuned)" in shown
    for axis in judgement.axes:
        assert figures.difference(axis.unit, axis.difference.value) in shown
        assert figures.difference_span(axis.unit, axis.difference) in shown
    assert shown.count("▲ better") == 2 and shown.count("▼ worse") == 1


def test_markdown_is_one_table_whatever_the_names(judgement, about):
    hostile = judgement.model_copy(update={"about": about.model_copy(update={"parent": "a|b\n*c* <img>"})})
    lines = as_markdown(hostile).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + len(judgement.axes)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {6}
    assert r"a\|b \*c\* &lt;img>" in table[0]


def test_figures_are_written_for_people():
    assert figures.difference("share", -0.0004) == "±0.0\xa0points" and figures.difference("nats/token", -0.42) == "−0.420\xa0nats"
    assert figures.span("share", Interval(value=0.5, low=0.4, high=0.6)) == "40.0 to 60.0\xa0%"
    assert figures.within("nats/token", 0.05) == "±0.05\xa0nats" and figures.within("share", 0.1) == "±10\xa0points"
    assert (
        figures.duration(59.94) == "59.9\xa0s"
        and figures.duration(192.2) == "3\xa0min 12\xa0s"
        and figures.duration(7200) == "2\xa0h 0\xa0min"
    )
    assert (
        figures.memory(2**30) == "1\xa0GiB" and figures.memory(1000 * 2**20) == "1,000\xa0MiB" and figures.large(4_884_480) == "4.88\xa0M"
    )
