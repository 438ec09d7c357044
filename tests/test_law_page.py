"""The page about a law: whole, offline, honest about what it does not know, and drawn inside its frames."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sizewise import laws
from sizewise.laws.decisions import Questions, answer
from sizewise.records import Estimate
from sizewise.report import format as f
from sizewise.report import law_figures as figures
from sizewise.report.law_page import LawPage, render
from tests.test_cli import call, refused
from tests.test_report import browser, chromium, read

TWO = laws.Columns(params="params", samples="tokens", loss="loss")
ONE = laws.Columns(params="params", loss="loss")
ALL = Questions(budget=1e21, serve=1e12, target=0.8, next_cost=0.0)


def page_of(path: Path, columns: laws.Columns, asked: Questions | None = None, level: float = 0.9) -> LawPage:
    evidence = laws.read_table(path, columns)
    law = laws.fit_evidence(evidence)
    points = [dict.fromkeys(law.variables, 3e9), dict.fromkeys(law.variables, 7e12)]
    said = laws.predict(law, points, level=level)
    decided = answer(law, asked or Questions(), evidence=evidence, level=level)
    return LawPage(
        path.name, columns.sizes, law, evidence, points, said, decided, level, "sizewise fit runs.csv --loss loss"
    )


def table(path: Path, header: str, *columns: object) -> Path:
    """A file with these columns of numbers below its header."""
    rows = zip(*columns, strict=True)
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]))
    return path


def sizes_table(path: Path, *, noise: float = 0.003, rows: int = 14, wild: bool = True) -> Path:
    """A law of parameters with a run ten times off, or noise without one."""
    n, rng = np.geomspace(1e5, 1e9, rows), np.random.default_rng(0)
    loss = (2 + 300 * n**-0.3) * np.exp(noise * rng.normal(size=rows))
    loss[rows // 2] *= 10 if wild else 1
    return table(path, "params,loss", n, loss)


@pytest.fixture(scope="module")
def two(shared_data: Path) -> LawPage:
    return page_of(shared_data / "scaling" / "runs" / "llama3_raw.csv", TWO, ALL)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> LawPage:
    return page_of(sizes_table(tmp_path_factory.mktemp("one") / "sizes.csv"), ONE, Questions(next_cost=0.0))


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> LawPage:
    """Noise over parameters and samples: forms that were fitted, and no law."""
    rng = np.random.default_rng(1)
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e6, 1e9, 6), np.geomspace(1e8, 1e11, 6)))
    path = tmp_path_factory.mktemp("noisy") / "noise.csv"
    return page_of(table(path, "params,tokens,loss", n, d, np.exp(rng.normal(size=36))), TWO, ALL)


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> LawPage:
    """Parameters and samples that grow together."""
    path, n = tmp_path_factory.mktemp("tied") / "tied.csv", np.geomspace(1e6, 1e10, 16)
    return page_of(table(path, "params,tokens,loss", n, 20 * n, 2 + 300 * n**-0.3), TWO, ALL)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> LawPage:
    """Two runs, too few for any form."""
    path = tmp_path_factory.mktemp("few") / "few.csv"
    return page_of(table(path, "params,tokens,loss", (1e6, 1e7), (1e8, 1e9), (3, 2)), TWO, ALL)


PAGES = pytest.mark.parametrize("name", ["two", "one", "noisy", "tied", "few"])


@PAGES
def test_it_asks_the_network_for_nothing_and_shows_no_raw_value(name: str, request: pytest.FixtureRequest) -> None:
    html = render(request.getfixturevalue(name))
    words = read(html)
    assert all(address.startswith("#") for address in words.addresses)
    assert not [word for word in ("@import", "url(", "http://", "https://") if word in html]
    assert not re.search(r"\b(nan|NaN|None|undefined|inf|Infinity)\b", " ".join(words.words))
    assert "nan" not in "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    assert len(html) < 1_000_000


@PAGES
def test_marks_lie_inside_their_charts(name: str, request: pytest.FixtureRequest) -> None:
    charts = re.findall(r'<svg viewBox="0 0 (\d+) (\d+)"(.*?)</svg>', render(request.getfixturevalue(name)), re.DOTALL)
    assert charts
    for width, height, marks in charts:
        places = re.findall(r'c?x[12]?="([\d.-]+)" c?y[12]?="([\d.-]+)"', marks)
        places += [tuple(p.split(",")) for line in re.findall(r' points="([^"]+)"', marks) for p in line.split()]
        assert places
        for x, y in places:
            assert 0 <= float(x) <= float(width)
            assert 0 <= float(y) <= float(height)


def test_the_answer_comes_first(two: LawPage) -> None:
    text = "".join(read(render(two)).words)
    assert two.law.status == "supported"
    hidden = sum(b.hidden for b in two.law.backtests)
    assert "that held: 100% of the runs hidden from it lay inside their 90% intervals." in text
    assert f"of {hidden} hidden runs" in text
    assert text.index("that held") < text.index("α = ".replace(" ", "\u00a0")) < text.index("How well it held")
    assert two.decisions.optimum is not None
    assert two.decisions.optimum.params is not None
    assert "parameters for 10²¹ FLOP" in text


def test_a_law_of_two_variables_has_all_its_figures(two: LawPage) -> None:
    html = render(two)
    labels = re.findall(r'role="img" aria-label="([^"]+)"', html)
    assert labels == [
        "loss against compute",
        "loss against samples",
        "Predictions of hidden runs over what was measured",
        "Residuals against size",
        "loss against parameters at equal compute",
        "Equal loss over parameters and samples",
    ]
    charts = dict(zip(labels, re.findall(r'<svg viewBox="0 0 .*?</svg>', html, re.DOTALL), strict=True))
    assert charts["loss against compute"].count('<circle class="run') == two.law.runs
    assert charts["loss against compute"].count('<line class="hindcast"') == len(two.law.backtests)
    assert charts["loss against parameters at equal compute"].count('<polygon class="minimum') == figures.ISO_FLOPS
    assert charts["Equal loss over parameters and samples"].count('<polyline class="contour"') == figures.LEVELS
    assert 'class="band path"' in charts["Equal loss over parameters and samples"]


def test_a_law_of_one_variable_has_those_that_make_sense(one: LawPage) -> None:
    html = render(one)
    labels = re.findall(r'role="img" aria-label="([^"]+)"', html)
    assert labels == [
        "loss against params",
        "Predictions of hidden runs over what was measured",
        "Residuals against size",
    ]
    assert "Size against data" not in html
    assert "The next runs" in html


def test_lines_have_no_gap_between_the_evidence_and_beyond(one: LawPage, two: LawPage) -> None:
    for page, draw in ((one, figures.against_one), (two, figures.against_compute), (two, figures.contours)):
        svg = draw(figures.Subject.of(page.law, page.evidence, page.level))
        lines = re.findall(r'<polyline class="law(?: outside)?" points="([^"]+)"', svg)
        assert len(lines) >= 2
        for left, right in pairwise(lines):
            assert left.split()[-1] == right.split()[0]


def test_a_wild_run_is_named_and_does_not_squeeze_the_rest(one: LawPage) -> None:
    subject = figures.Subject.of(one.law, one.evidence, one.level)
    assert "row 8 at +" in figures.residuals(subject)
    svg = figures.against_one(subject)
    assert svg.count('<polygon class="run') == 1
    heights = [float(y) for y in re.findall(r'<circle class="run s2" cx="[\d.]+" cy="([\d.]+)"', svg)]
    assert max(heights) - min(heights) > 150
    assert re.search(r"<td>outliers</td><td>1</td>\s*<td>8</td>", render(one))


@pytest.mark.parametrize("name", ["noisy", "tied", "few"])
def test_a_refused_law_says_so_first_and_decides_nothing(name: str, request: pytest.FixtureRequest) -> None:
    page = request.getfixturevalue(name)
    html = render(page)
    text = "".join(read(html).words)
    assert page.law.status != "supported"
    assert re.search(r"<h1>(No law|Not enough runs)", html)
    assert f'<span class="badge {page.law.status}">' in html
    assert 'class="group"' not in html
    assert "that held" not in text
    assert "minimum s" not in html.split("</style>")[1]
    assert 'class="band path"' not in html


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    hostile = '<script>alert("x")</script>&'
    n = np.geomspace(1e5, 1e9, 12)
    header, cell = f'"{hostile.replace(chr(34), chr(34) * 2)}",loss', hostile.replace(chr(34), chr(39))
    path = table(tmp_path / "runs.csv", header, [*n, cell], [*(2 + 300 * n**-0.3), 2])
    page = page_of(path, laws.Columns(params=hostile, loss="loss"))
    html = render(LawPage(hostile, *(getattr(page, field) for field in list(page.__dataclass_fields__)[1:])))
    assert "<script>alert" not in html
    text = "".join(read(html).words)
    assert f"column {hostile}" in text
    assert "is not a positive number, such as" in text


def test_many_runs_are_thinned_but_no_outlier_is_lost(tmp_path: Path) -> None:
    page = page_of(sizes_table(tmp_path / "many.csv", rows=4001), ONE)
    subject = figures.Subject.of(page.law, page.evidence, page.level)
    assert len(subject.y) <= figures.MOST_DRAWN + 1
    assert subject.outliers.any()
    assert len(render(page)) < 400_000


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.348, "0.348"), (999_999.6, "1M"), (5.76e3, "5.76k"), (3.07e9, "3.07G"), (1e21, "10²¹"), (-2.5e-7, "-2.5·10⁻⁷")],
)
def test_quantities_of_any_magnitude_are_short(value: float, words: str) -> None:
    assert f.quantity(value) == words


def test_an_open_interval_is_not_hidden() -> None:
    shown = f.shown(Estimate(3e9, 1e9, math.inf, 0.9, "draws", 5), "quantity")
    assert f"{shown.value} {shown.interval}" == "3G [1G, ∞]"


def test_the_command_writes_it(shared_data: Path, tmp_path: Path) -> None:
    runs, html = shared_data / "scaling" / "runs" / "datablations_1ep.csv", tmp_path / "law.html"
    columns = ("--params", "params", "--samples", "tokens", "--loss", "loss")
    result = call("fit", runs, *columns, "--budget", "1e21", "--next", "--report", html)
    assert result.returncode == 0, result.stderr
    assert result.stdout.rstrip().endswith(f"report: {html}")
    text = "".join(read(html.read_text()).words)
    assert "--budget 1e21 --next --report" in text
    assert "datablations_1ep.csv" in text
    said = json.loads(call("fit", runs, *columns, "--report", html, "--json").stdout)
    assert said["report"] == str(html)
    refused(call("fit", runs, *columns, "--report", tmp_path), 2, "cannot be written")
    refused(call("fit", runs, *columns, "--report", tmp_path / "no" / "law.html"), 2, "cannot be written")
    refused(call("fit", tmp_path, "--report", html), 2, "--report is for tables")


def test_it_needs_neither_torch_nor_a_plotting_library(tmp_path: Path) -> None:
    sizes = sizes_table(tmp_path / "sizes.csv", wild=False)
    code = f"""
import sys
from sizewise import cli
flags = ["--params", "params", "--loss", "loss", "--report", {str(tmp_path / "law.html")!r}]
assert cli.main(["fit", {str(sizes)!r}, *flags]) == 0
assert not {{"torch", "sklearn", "onnxruntime", "matplotlib", "scipy.stats"}} & set(sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@browser
def test_the_browser_draws_it_without_complaint(two: LawPage, tmp_path: Path) -> None:
    html, picture = tmp_path / "law.html", tmp_path / "law.png"
    html.write_text(render(two))
    result = chromium(html, "--window-size=1200,900", f"--screenshot={picture}")
    assert "CONSOLE" not in result.stderr
    assert picture.stat().st_size > 30_000
