"""The page in a real browser, used as people use it: a digit is drawn, a text typed, a sound and a picture picked."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sizewise import families, padding, runtimes, tasks
from sizewise.records import Reading, Recipe, Signature
from sizewise.runtimes import Config, Manifest, eager, onnxruntime
from sizewise.store import Store, sha256, write_json
from sizewise.tasks import Preprocessor, Task
from tests.browser import Browser, browsing, needs_browser
from tests.builders import train, trial
from tests.serving import Server, serving

pytestmark = needs_browser

ONE = [(0.5, 0.12), (0.5, 0.3), (0.5, 0.5), (0.5, 0.7), (0.5, 0.88)]
ZERO = [(0.5 + 0.22 * np.sin(a), 0.5 - 0.36 * np.cos(a)) for a in np.linspace(0, 2 * np.pi, 24)]


def written(folder: Path, config: Config, files: Mapping[str, bytes] = {}, weights: Path | None = None) -> Path:
    """An exported folder of a model, untrained where there are no weights."""
    net = families.load(config.family, config.signature).build(config.width, seed=0)
    if weights:
        families.load_weights(net, weights)
    config.write(folder)
    onnxruntime.export(eager.Deployable(net, config.preprocessor, config.signature), config.signature, folder)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "README.md").write_text(f"# {config.name}\n\nWhat it is for.\n")
    write_json(folder / "manifest.json", Manifest(1, {path.name: sha256(path) for path in folder.iterdir()}))
    return folder


def of_task(folder: Path, task: Task, family: str, weights: Path | None = None) -> Path:
    config = Config(1, folder.name, "onnxruntime", "fp32", family, 8, task.signature, task.classes, task.preprocessor)
    return written(folder, config, task.files, weights)


def digits(root: Path) -> Path:
    """A model that has learned the real digits."""
    task = tasks.load("digits", None)
    run = train(trial(task, 8, recipe=Recipe(batch_size=32, epochs=12)), task, root)
    return of_task(root / "digits", task, "cnn", Store(root).trial_folder(run.trial.key) / "model.safetensors")


@pytest.fixture(scope="module")
def sounds(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some of the real spoken digits."""
    folder = tmp_path_factory.mktemp("sounds")
    with zipfile.ZipFile(shared_data / "fsdd" / "recordings.zip") as archive:
        for name in archive.namelist():
            digit, _, take = Path(name).stem.partition("_")
            if name.endswith(".wav") and digit in "0123" and take in ("jackson_0", "jackson_5", "theo_6", "theo_7"):
                (folder / Path(name).name).write_bytes(archive.read(name))
    return folder


@pytest.fixture(scope="module")
def spoken(sounds: Path) -> Task:
    return tasks.load("sounds", sounds, Reading())


@pytest.fixture(scope="module")
def served(spoken: Task, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each kind of input."""
    root = tmp_path_factory.mktemp("page")
    (root / "films.csv").write_text(
        "text,label\n" + "".join(f"{'good' if i % 2 else 'bad'} film {i},{i % 2}\n" for i in range(40))
    )
    films = tasks.load("text", root / "films.csv", Reading(steps=20, vocabulary=300))
    boxes = Signature("detection", (3, 48, 64), 2)
    colours = Preprocessor((90.0,) * 3, (50.0,) * 3)
    seen = Config(1, "seen", "onnxruntime", "fp32", "detector", 8, boxes, ("cat", "dog"), colours)
    folders = [
        digits(root),
        of_task(root / "films", films, "bag"),
        of_task(root / "spoken", spoken, "cnn1d"),
        written(root / "seen", seen),
    ]
    return {folder.name: folder for folder in folders}


@pytest.fixture(scope="module")
def server(served: dict[str, Path]) -> Iterator[Server]:
    with serving(*served.values()) as running:
        yield running


@pytest.fixture(scope="module")
def browser(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("profile")) as tab:
        tab.open(f"http://{server.address}/")
        tab.until("document.querySelector('#main')?.dataset.model")
        yield tab
        assert tab.console == []
        hosts = {url.split("/")[2] for url in tab.requested if url.startswith("http")}
        assert hosts == {server.address}, "the page must work without a network"


def pick(browser: Browser, model: str) -> None:
    """Choose a model in the list."""
    code = f"const list = document.querySelector('#model'); list.value = {model!r};"
    browser.run(f"{{ {code} list.dispatchEvent(new Event('change')); }}")
    browser.until(f"document.querySelector('#main').dataset.model === {model!r}")
    assert str(browser.run("document.querySelector('#card').textContent")).startswith(f"# {model}")


def answered(browser: Browser) -> str:
    """Press the button; what the answer says."""
    browser.run("document.querySelector('#answer').replaceChildren()")
    browser.run("document.querySelector('#ask').click()")
    browser.until("document.querySelector('#answer').children.length || !document.querySelector('#problem').hidden")
    assert browser.run("document.querySelector('#problem').innerText") == ""
    return browser.text("#words")


def keep(browser: Browser, name: str, tmp_path: Path) -> None:
    """A picture of the page, in the folder that SIZEWISE_PICTURES names if someone wants to look at it."""
    file = Path(os.environ.get("SIZEWISE_PICTURES", tmp_path)) / f"{name}.png"
    browser.screenshot(file)
    assert file.stat().st_size > 10_000


@pytest.mark.parametrize(("digit", "path"), [("1", ONE), ("0", ZERO)])
def test_a_drawn_digit_is_read(browser: Browser, tmp_path: Path, digit: str, path: list[tuple[float, float]]) -> None:
    pick(browser, "digits")
    assert browser.run("document.querySelector('#range').value") == "16"
    browser.drag("#canvas", path)
    assert answered(browser) == digit
    latency = browser.text("#latency")
    assert float(latency.split(" ms")[0]) > float(latency.split(", ")[1].split(" ms")[0]) > 0
    keep(browser, f"digit-{digit}", tmp_path)
    browser.run("document.querySelector('#clear').click()")


def test_what_is_not_drawn_is_not_asked(browser: Browser) -> None:
    pick(browser, "digits")
    browser.run("document.querySelector('#ask').click()")
    assert browser.text("#problem") == "Draw something first."


def test_a_picture_is_read_as_it_is(browser: Browser, served: dict[str, Path], tmp_path: Path) -> None:
    """A picture of a validation image, picked as a file, is answered as its pixels are."""
    task = tasks.load("digits", None)
    session = runtimes.load(served["digits"])
    pick(browser, "digits")
    for i in (0, 3, 5):
        pixels = np.uint8(np.round(np.float32(task.validation.x[i, 0]) * 255 / 16))
        Image.fromarray(pixels).resize((280, 280), Image.Resampling.NEAREST).save(tmp_path / f"{i}.png")
        browser.run("document.querySelector('#clear').click()")
        browser.choose("#picture", tmp_path / f"{i}.png")
        pixels_there = "getContext('2d').getImageData(0, 0, 280, 280).data.some((v, i) => v && i % 4 < 3)"
        browser.until(f"document.querySelector('#canvas').{pixels_there}")
        assert answered(browser) == task.classes[session(task.validation.x[i : i + 1].astype(np.float32)).argmax()]


def test_a_typed_text_is_classified(browser: Browser, tmp_path: Path) -> None:
    pick(browser, "films")
    browser.run("document.querySelector('#text').value = 'a good film'")
    assert answered(browser) in ("0", "1")
    keep(browser, "text", tmp_path)


def test_a_sound_is_heard_as_its_task_heard_it(
    browser: Browser, sounds: Path, spoken: Task, served: dict[str, Path], tmp_path: Path
) -> None:
    pick(browser, "spoken")
    file = sounds / "3_jackson_0.wav"
    browser.choose("#sound", file)
    word = answered(browser)
    keep(browser, "sound", tmp_path)
    from sizewise.tasks.audio import filterbanks, listen

    heard, _ = listen({file.name: file.read_bytes}, [file.name], filterbanks)
    series = padding.pad([heard[file.name]])
    session = runtimes.load(served["spoken"])
    assert word == spoken.classes[int(session(series).argmax())]


def test_boxes_are_drawn_or_nothing_is_said_to_be_found(browser: Browser, tmp_path: Path) -> None:
    pick(browser, "seen")
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    browser.choose("#picture", tmp_path / "noise.png")
    browser.run("document.querySelector('#ask').click()")
    browser.until("!!document.querySelector('#answer canvas') || !document.querySelector('#problem').hidden")
    assert browser.run("document.querySelector('#problem').innerText") == ""
    keep(browser, "boxes", tmp_path)


def test_the_page_of_the_api_lists_every_operation(browser: Browser, server: Server, tmp_path: Path) -> None:
    browser.open(f"http://{server.address}/docs")
    listed = browser.text("#operations")
    for path in ("/v2/models/{model}/infer", "/v2/health/ready", "/metrics"):
        assert path in listed
    keep(browser, "api", tmp_path)
    browser.open(f"http://{server.address}/")
    browser.until("document.querySelector('#main')?.dataset.model")


def test_the_page_asks_for_the_token(tmp_path: Path) -> None:
    signature = Signature("classification", (1, 8, 8), 2)
    config = Config(1, "small", "onnxruntime", "fp32", "cnn", 2, signature, ("a", "b"), Preprocessor((0.0,), (1.0,)))
    with (
        serving(written(tmp_path / "small", config), SIZEWISE_TOKEN="sesame") as server,
        browsing(tmp_path / "profile") as tab,
    ):
        tab.open(f"http://{server.address}/")
        tab.until("!document.querySelector('#login').hidden")
        tab.run("document.querySelector('#token').value = 'sesame'")
        tab.run("document.querySelector('#login button').click()")
        tab.until("!document.querySelector('#main').hidden")
        tab.until("document.querySelector('#card').textContent.startsWith('# small')")
