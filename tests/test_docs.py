"""Every command in the README and the guides is run, in order, as a newcomer would type it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md",
    "README.zh-CN.md",
    "docs/guides/first-study.md",
    "docs/guides/your-own-data.md",
    "docs/guides/fit-your-runs.md",
    "docs/guides/initial-weights.md",
    "docs/guides/compression.md",
)
GUIDE = ROOT / "docs" / "guides" / "serving.md"

pytestmark = pytest.mark.slow


def commands(page: str) -> list[str]:
    """Lines that start with `$ ` in the page's console blocks."""
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    return [line[2:].split("  #")[0].strip() for block in blocks for line in block.splitlines() if line[:2] == "$ "]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A newcomer's folder, with what the pages speak of: a table of runs, points to predict, a module of their own."""
    folder = tmp_path_factory.mktemp("home")
    for place in (folder, folder / "examples"):
        place.mkdir(exist_ok=True)
        (place / "runs.csv").write_text((ROOT / "examples" / "runs.csv").read_text())
    (folder / "points.csv").write_text("params,samples\n3M,54000\n3M,1M\n")
    (folder / "my_models.py").write_text((ROOT / "tests" / "own_family.py").read_text())
    return folder


def run(command: str, home: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(home)}
    return subprocess.run(shlex.split(command), cwd=home, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def demo(home: Path) -> subprocess.CompletedProcess[str]:
    return run("sizewise run digits", home)


def test_readme_opens_with_the_two_commands() -> None:
    for page in ("README.md", "README.zh-CN.md"):
        assert commands(page)[:2] == ["make demo", "make test"]


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_knows_the_two_commands(target: str) -> None:
    result = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert ("sizewise run digits" if target == "demo" else "pytest") in result.stdout


def test_the_demo_ends_well_and_leaves_what_it_promises(home: Path, demo: subprocess.CompletedProcess[str]) -> None:
    assert demo.returncode in (0, 3), demo.stdout + demo.stderr
    study = home / "runs" / "digits"
    for name in ("report.html", "choice.json", "law.json", "measurements.json", "findings.json", "study.toml"):
        assert (study / name).stat().st_size > 0
    assert len(list((study / "models").glob("*/manifest.json"))) >= 1
    assert "choice (" in demo.stdout
    assert f"report: {Path('runs/digits/report.html')}" in demo.stdout
    assert tomllib.loads((study / "study.toml").read_text())["task"] == "digits"


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page(page: str, home: Path, demo: subprocess.CompletedProcess[str]) -> None:
    typed = [c.removeprefix(".venv/bin/") for c in commands(page)]
    found = [c for c in typed if c.startswith("sizewise") and not needs_more(c)]
    assert found
    for command in found:
        result = run(command, home)
        assert result.returncode in (0, 3), f"{command}\n{result.stdout}\n{result.stderr}"
        assert "Traceback" not in result.stderr


def needs_more(command: str) -> bool:
    """Whether a command needs a server's client, hours, or the user's own files; those have tests of their own."""
    return any(word in command for word in ("serve", "mnist", "photos", "scans", "reviews"))


@pytest.fixture(scope="module")
def server(home: Path, demo: subprocess.CompletedProcess[str]) -> Iterator[tuple[str, int]]:
    """The recommended model, served by the command of the guide."""
    name = json.loads((home / "runs" / "digits" / "recommendation.json").read_text())["name"]
    command = next(c for c in commands("docs/guides/serving.md") if "serve" in c)
    words = shlex.split(command.replace("NAME", name).replace("8000", "0"))
    words[0] = str(Path(sys.executable).parent / words[0])
    process = subprocess.Popen(words, cwd=home, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    port = int(re.search(r"127\.0\.0\.1:(\d+)", process.stderr.readline() or "")[1])  # type: ignore[index]
    for _ in range(100):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5)
            break
        except OSError:
            time.sleep(0.1)
    yield name, port
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0


def test_the_client_of_the_serving_guide_works(server: tuple[str, int]) -> None:
    name, port = server
    code = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)[0]
    code = code.replace("NAME", name).replace("8000", str(port))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().startswith("[[")


def test_every_link_of_the_pages_leads_somewhere() -> None:
    for page in ROOT.glob("**/*.md"):
        if ".venv" in page.parts or "runs" in page.parts:
            continue
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page}: {link}"
