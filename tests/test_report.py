"""The page in a real browser: whole, offline, without an error, and honest about what is missing."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sizewise import report, stats
from sizewise.records import Comparison, Estimate, Metric, NextRun
from sizewise.report import classes, figures, law, tables
from sizewise.report import format as f
from sizewise.report.answer import groups, headline
from sizewise.report.svg import Chart, Scale, span
from sizewise.study import Workspace

SECTIONS = ("size", "choice", "findings", "curves", "frontier", "tables", "classes", "reproduce")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")


@pytest.fixture(scope="module")
def page(small_study: Path) -> report.Page:
    return report.collect(Workspace.open(small_study))


def chromium(html: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={html.parent / 'profile'}", "--enable-logging=stderr", "--v=0", *flags]
    return subprocess.run([*command, html.as_uri()], capture_output=True, text=True, timeout=120, check=False)


class _Words(HTMLParser):
    """Everything a reader sees, and every address that the page mentions."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.addresses: list[str] = []
        self.silent = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.silent += tag in ("style", "script")
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        self.silent -= tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        if not self.silent:
            self.words.append(data)


def read(html: str) -> _Words:
    words = _Words()
    words.feed(html)
    return words


def test_the_page_asks_the_network_for_nothing(page: report.Page) -> None:
    html = report.render(page)
    assert all(address.startswith("#") for address in read(html).addresses)
    assert "@import" not in html
    assert "url(" not in html
    assert len(html) < 500_000


def test_every_section_is_there_and_no_value_is_raw(page: report.Page) -> None:
    html = report.render(page)
    for section in SECTIONS:
        assert f'<section id="{section}">' in html
    text = " ".join(read(html).words)
    assert not re.search(r"\b(nan|NaN|None|undefined|inf)\b", text)


def test_the_answer_comes_first(page: report.Page) -> None:
    assert page.choice is not None
    html = report.render(page)
    assert html.index("<h1>") < html.index("<section")
    assert page.choice.sentence.removeprefix("Undetermined: ") in "".join(read(html).words)


def test_class_names_cannot_break_the_page(page: report.Page) -> None:
    hostile = tuple(f'<script>alert("{c}")</script>&' for c in page.classes)
    html = report.render(replace(page, classes=hostile, name="<b>x</b>"))
    assert "<script>alert" not in html
    assert "<b>x</b>" not in html
    assert hostile[0] in "".join(read(html).words)


def test_a_study_that_has_only_begun_says_what_is_missing(page: report.Page) -> None:
    begun = replace(
        page,
        laws=(),
        findings=(),
        choice=None,
        compression=None,
        measurements=(),
        recommendation=None,
        exports=(),
    )
    text = "".join(read(report.render(begun)).words)
    for verb in ("fit", "choose", "measure"):
        assert f"sizewise {verb}" in text
    assert "sizewise train" in "".join(read(report.render(replace(begun, runs=()))).words)


def test_marks_lie_inside_their_charts(page: report.Page) -> None:
    charts = re.findall(r'<svg viewBox="0 0 (\d+) (\d+)"(.*?)</svg>', report.render(page), re.DOTALL)
    assert len(charts) >= 5
    for width, height, marks in charts:
        for x, y in re.findall(r'cx="([\d.-]+)" cy="([\d.-]+)"', marks):
            assert 0 <= float(x) <= float(width)
            assert 0 <= float(y) <= float(height)


@browser
def test_the_browser_draws_it_without_complaint(page: report.Page, tmp_path: Path) -> None:
    html, picture = tmp_path / "report.html", tmp_path / "report.png"
    html.write_text(report.render(page))
    result = chromium(html, "--window-size=1200,900", f"--screenshot={picture}")
    assert "CONSOLE" not in result.stderr
    assert picture.stat().st_size > 30_000


@browser
def test_tables_sort_when_a_heading_is_pressed(page: report.Page, tmp_path: Path) -> None:
    press = (
        "<script>[...document.querySelectorAll('th')].find(h => h.textContent === 'on disk').click()</script></body>"
    )
    html = tmp_path / "report.html"
    html.write_text(report.render(page).replace("</body>", press))
    dumped = chromium(html, "--dump-dom").stdout
    table = dumped[dumped.index("Candidates, measured") :].split("</table>")[0]
    sizes = [int(row.split('data-v="')[-4].split('"')[0]) for row in table.split("<tr")[2:]]
    assert sizes == sorted((m.size_bytes for m in page.measurements), reverse=True)


def test_ticks_are_round_and_inside() -> None:
    assert Scale(0.013, 0.094, 0, 100).ticks() == pytest.approx([0.02, 0.04, 0.06, 0.08])
    assert Scale(200, 900_000, 0, 100, log=True).ticks() == pytest.approx([1e3, 1e4, 1e5])


def test_a_chart_of_nothing_is_still_a_chart() -> None:
    chart = Chart("nothing", span([]), span([float("nan")]))
    chart.dot(float("nan"), 1, "mean")
    chart.bar(1, float("nan"), 2, "interval")
    assert "nan" not in chart.render()


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (f.short(693_962), "694k"),
        (f.size(70_700), "70.7 kB"),
        (f.percent(0.98641), "98.64%"),
        (f.number(float("nan")), "–"),
        (f.number(0.0012345), "0.00123"),
        (f.p_value(0.0004), "< 0.001"),
        (f.duration(600), "10.0 min"),
        (f.counted(1, "seed"), "1 seed"),
        (f.sentence("it holds"), "It holds."),
    ],
)
def test_numbers_look_as_people_write_them(shown: str, expected: str) -> None:
    assert shown == expected


@pytest.mark.parametrize(
    ("kind", "value", "low", "high", "expected"),
    [
        ("percent", 0.98641, 0.981, 0.99, "98.64% [98.10, 99.00]"),
        ("points", -0.00061, -0.0046, 0.0035, "-0.06 [-0.46, +0.35]"),
        ("latency", 0.0383, 0.0379, 1.2, "38.3 µs [37.9, 1,200.0]"),
        ("latency", 12.0, 11.96, 12.5, "12.0 ms [12.0, 12.5]"),
        ("count", 43_812.4, 43_000.0, 45_000.0, "43,812 [43,000, 45,000]"),
        ("times", 3.456, 3.4, 3.51, "3.5 × [3.4, 3.5]"),
    ],
)
def test_an_interval_is_written_in_the_unit_and_decimals_of_its_value(
    kind: f.Kind, value: float, low: float, high: float, expected: str
) -> None:
    shown = f.shown(Estimate(value, low, high, 0.95, "made", 3), kind)
    assert f"{shown.value} {shown.interval}" == expected
    assert shown.note == "95% interval, made"


def test_an_estimate_without_an_interval_shows_none_and_says_why() -> None:
    shown = f.shown(stats.mean(np.array([0.5])), "percent")
    assert (shown.value, shown.interval) == ("50.00%", "")
    assert "no interval" in shown.note


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-0.004, 0.002, "within"), (-0.02, -0.006, "beyond"), (-0.006, 0.01, "open"), (math.nan, math.nan, "open")],
)
def test_the_table_of_the_choice_judges_as_the_choice_does(
    page: report.Page, low: float, high: float, verdict: str
) -> None:
    assert page.choice is not None
    difference = replace(page.choice.comparisons[0].difference, low=low, high=high)
    one = replace(page.choice.comparisons[0], difference=difference)
    (row,) = tables.verdicts(replace(page.choice, margin=0.005, comparisons=(one,)))
    assert row.verdict == verdict


def test_every_width_smaller_than_the_largest_is_in_the_table_of_the_choice(page: report.Page) -> None:
    assert page.choice is not None
    listed = [row.comparison.a for row in tables.verdicts(page.choice)]
    assert listed == [f"width {width}" for width in sorted(page.sizes, reverse=True)[1:]]


def test_per_class_scores_agree_with_the_counts() -> None:
    first, second, third = classes.per_class([[8, 2, 0], [1, 9, 0], [0, 1, 0]], ["a", "b", "never answered"])
    assert (first.examples, second.examples, third.examples) == (10, 10, 1)
    assert first.precision.value == pytest.approx(8 / 9)
    assert first.recall.value == pytest.approx(0.8)
    assert first.f1.value == pytest.approx(16 / 19)
    assert second.f1.value == pytest.approx(2 * 0.75 * 0.9 / 1.65)
    for score in (first.precision, first.recall, first.f1, second.f1, third.recall):
        assert 0 <= score.low <= score.value <= score.high <= 1
    assert math.isnan(third.precision.low)


def test_the_macro_average_is_the_mean_of_the_classes(page: report.Page) -> None:
    assert page.recommended is not None
    scores, per_class = page.recommended.test, classes.per_class(page.recommended.test.confusion, page.classes)
    assert np.mean([c.recall.value for c in per_class]) == pytest.approx(scores.values["recall"])
    assert np.mean([c.f1.value for c in per_class]) == pytest.approx(scores.values["F1"])


def test_many_classes_list_their_most_frequent_mistakes_instead_of_a_matrix(page: report.Page) -> None:
    assert page.recommended is not None
    many = classes.MOST_CLASSES + 1
    confusion = 5 * np.eye(many, dtype=int)
    confusion[3, 4], confusion[7, 2] = 2, 4
    found = classes.mistakes(confusion.tolist(), [f"c{i}" for i in range(many)])
    assert [(m.truth, m.answer, m.count) for m in found] == [("c7", "c2", 4), ("c3", "c4", 2)]
    assert found[0].share.value == pytest.approx(4 / 9)
    test = replace(page.recommended.test, confusion=tuple(map(tuple, confusion.tolist())))
    measured = tuple(replace(m, test=test) for m in page.measurements)
    html = report.render(replace(page, classes=tuple(f"c{i}" for i in range(many)), measurements=measured))
    assert "c7" in html[html.index('id="classes"') :]
    assert '<table class="heat">' not in html


def test_the_law_is_drawn_without_a_gap(page: report.Page) -> None:
    drawn = 0
    for one in page.laws:
        svg = figures.size_performance(page.sizes, one, page.choice)
        lines = re.findall(r'<polyline class="(law(?: outside)?)" points="([^"]+)"', svg)
        for (_, left), (_, right) in pairwise(lines):
            assert left.split()[-1] == right.split()[0]
        drawn += len(lines)
    assert drawn >= 3


def test_a_law_that_could_not_be_fitted_draws_the_runs_alone(page: report.Page) -> None:
    refused = replace(page.laws[0], forms=(), status="insufficient", reason="too few sizes")
    assert law.curve(refused, (1e2, 1e5)) is None
    svg = figures.size_performance(page.sizes, refused, page.choice)
    assert "polyline" not in svg
    assert svg.count('class="seed"') == sum(map(len, page.sizes.values()))
    assert "Too few sizes." in "".join(read(report.render(replace(page, laws=(refused,)))).words)


def test_the_chosen_size_and_the_recommended_model_never_share_a_group(page: report.Page) -> None:
    assert page.choice is not None
    assert page.recommended is not None
    found = groups(page.choice, page.recommended, page.recommendation, page.runs, page.parent)
    size, shipped = found
    assert size.name == f"width {page.choice.width}"
    assert shipped.name == page.recommended.candidate.name
    assert all("validation" in card.label for card in size.cards if "accuracy" in card.label)
    assert any("test accuracy" in card.label for card in shipped.cards)
    assert groups(page.choice, None, None, page.runs, "") == [size]


def test_the_headline_never_promises_more_than_the_evidence(page: report.Page) -> None:
    assert page.choice is not None
    choice = replace(page.choice, width=64, params=1000)
    question = NextRun((37, 64), 5, 60.0, "it is open")
    assert headline(replace(choice, status="supported")) == "Choose width 64, with 1,000 parameters."
    assert "so far" in headline(replace(choice, status="extrapolated"))
    undetermined = headline(replace(choice, status="undetermined", next_run=question))
    assert undetermined == "Width 64 for now; width 37 may be enough."


def test_the_recommended_model_is_marked_on_both_frontiers_and_leads_the_table(page: report.Page) -> None:
    assert page.recommendation is not None
    html = report.render(page)
    assert html[: html.index('id="tables"')].count('class="ring"') >= 2
    rows = tables.candidates(page.measurements, page.recommendation, page.parent)
    assert rows[0].m.candidate.name == page.recommendation.name
    assert all(row.shown for row in rows if row.m.frontier or row.role)
    assert {row.m.candidate.name for row in rows if "chosen model" in row.role} == {page.parent}


def test_every_uncertain_number_of_the_candidates_has_its_interval(page: report.Page) -> None:
    html = report.render(page)
    for m in page.measurements:
        for e, kind in (
            (m.latency_p50_ms, "latency"),
            (m.latency_p99_ms, "latency"),
            (m.throughput, "count"),
            (m.throughput_ratio, "number"),
        ):
            shown = f.shown(e, kind)
            assert f"{shown.value} <small>{shown.interval}</small>" in html


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` by WCAG 2.2, in [0, 1]."""
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("ink", "ground"),
    [
        ("ink", "paper"),
        ("soft", "paper"),
        ("soft", "picked"),
        ("blue", "paper"),
        ("good-ink", "good"),
        ("good-ink", "picked"),
        ("warm-ink", "warm"),
        ("warm-ink", "card"),
    ],
)
def test_words_stand_out_from_their_ground(scheme: str, ink: str, ground: str) -> None:
    style = (files("sizewise.report") / "page.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", light if scheme == "light" else dark))
    low, high = sorted((luminance(colours[ink]), luminance(colours[ground])))
    assert (high + 0.05) / (low + 0.05) >= 4.5


@pytest.mark.parametrize(
    ("label", "method"),
    [
        ("pruned to width 4", "prune"),
        ("distilled to width 4", "distil"),
        ("width 8 pruned to 50 % of the parameters by magnitude", "prune"),
        ("width 8 pruned to 50 % of the parameters by magnitude, then distilled", "distil"),
        ("width 8 distilled, then factorized at 80 % of the energy", "factorize"),
    ],
)
def test_every_chain_has_a_colour_beside_the_model_trained_small(label: str, method: str) -> None:
    difference = Estimate(0.0, -0.01, 0.01, 0.95, "made", 3)
    made = Comparison(
        a=label, b="width 4 trained small", metric=Metric("accuracy"), a_mean=0.9, b_mean=0.9, a_params=900,
        b_params=1000, difference=difference, population=difference, p_value=0.5, verdict="undetermined",
    )  # fmt: skip
    assert f"candidate {method}" in figures.compression_forest([made])
