"""A model folder gives the same answers in every runtime, and a damaged one gives none."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sizewise import families, runtimes
from sizewise.errors import DataError, IntegrityError, MissingExtraError
from sizewise.records import RuntimeName, Signature
from sizewise.report.figures import SHAPES
from sizewise.report.svg import OUTLINES
from sizewise.runtimes import RUNTIMES as REGISTRY
from sizewise.runtimes import Config, Manifest, eager
from sizewise.runtimes.source import Source
from sizewise.store import sha256, write_json
from sizewise.tasks import Preprocessor

SHAPE = (3, 12, 10)
CLASSES = ("ant", "bee", "cicada", "drône", "earwig")
MEAN, STD = (100.0, 120.0, 90.0), (60.0, 50.0, 70.0)
TASK, PREPROCESSOR = Signature("classification", SHAPE, len(CLASSES)), Preprocessor(MEAN, STD)
RUNTIMES: tuple[RuntimeName, ...] = ("torch", "onnxruntime", "openvino")


def write_folders(root: Path, *, width: int = 8) -> dict[RuntimeName, Path]:
    """The same model as an exported folder for each runtime."""
    net = families.load("cnn", TASK).build(width, seed=0)
    folders = {runtime: root / runtime for runtime in RUNTIMES}
    for runtime, folder in folders.items():
        config = Config(1, f"{runtime}-w{width}", runtime, "fp32", "cnn", width, TASK, CLASSES, PREPROCESSOR)
        config.write(folder)
    weights = folders["torch"] / "model.safetensors"
    families.save_weights(net.state_dict(), weights)
    with tempfile.TemporaryDirectory() as scratch:
        source = Source(eager.Deployable(net, PREPROCESSOR, TASK), TASK, weights, Path(scratch))
        for runtime in RUNTIMES[1:]:
            REGISTRY[runtime].backend.convert(source, "fp32", folders[runtime])
    for folder in folders.values():
        write_manifest(folder)
    return folders


def write_manifest(folder: Path) -> None:
    files = {path.name: sha256(path) for path in folder.iterdir() if path.name != "manifest.json"}
    write_json(folder / "manifest.json", Manifest(1, files))


def images(n: int, *, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).integers(0, 256, (n, *SHAPE)).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def folders(root: Path) -> dict[RuntimeName, Path]:
    return write_folders(root)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small PyTorch folder that a test may damage."""
    net = families.load("cnn", TASK).build(2, seed=0)
    Config(1, "small", "torch", "fp32", "cnn", 2, TASK, CLASSES, PREPROCESSOR).write(tmp_path)
    families.save_weights(net.state_dict(), tmp_path / "model.safetensors")
    write_manifest(tmp_path)
    return tmp_path


@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime_gives_the_models_logits(
    folders: dict[RuntimeName, Path], runtime: RuntimeName, batch: int
) -> None:
    x = images(batch)
    net = families.load("cnn", TASK).build(8, seed=0)
    standard = (x - np.reshape(MEAN, (1, 3, 1, 1))) / np.reshape(STD, (1, 3, 1, 1))
    with torch.inference_mode():
        expected = net(torch.from_numpy(standard.astype(np.float32))).numpy()

    logits = runtimes.load(folders[runtime])(x)

    assert logits.dtype == np.float32
    assert logits.shape == (batch, len(CLASSES))
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert np.ptp(expected) > 0.1, "the comparison must be able to fail"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_session_keeps_no_hold_on_what_it_returned(folders: dict[RuntimeName, Path], runtime: RuntimeName) -> None:
    session = runtimes.load(folders[runtime])
    first = session(images(4))
    kept = first.copy()
    session(images(4, seed=1))
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_more_threads_give_the_same_logits(folders: dict[RuntimeName, Path], runtime: RuntimeName) -> None:
    x = images(64)
    expected = runtimes.load(folders[runtime])(x)
    np.testing.assert_allclose(runtimes.load(folders[runtime], threads=2)(x), expected, atol=1e-5)
    torch.set_num_threads(1)


def test_export_and_convert_are_silent_and_repeatable(
    folders: dict[RuntimeName, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    again = write_folders(tmp_path)
    assert capfd.readouterr() == ("", "")
    for first, second in (
        (folders["onnxruntime"] / "model.onnx", again["onnxruntime"] / "model.onnx"),
        (folders["openvino"] / "model.bin", again["openvino"] / "model.bin"),
    ):
        assert first.read_bytes() == second.read_bytes()


def test_a_first_export_is_silent_too(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from sizewise import families; from sizewise.records import Signature\n"
        "from sizewise.runtimes import eager, onnxruntime; from sizewise.tasks import Preprocessor\n"
        "task = Signature('classification', (1, 8, 8), 2); net = families.load('cnn', task).build(1)\n"
        "onnxruntime.export(eager.Deployable(net, Preprocessor((0.0,), (1.0,)), task), task, Path())"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_exported_files_hold_no_paths_of_the_machine(folders: dict[RuntimeName, Path]) -> None:
    home = str(Path(runtimes.__file__).parents[1]).encode()
    for folder in folders.values():
        for path in runtimes.files(folder):
            assert home not in path.read_bytes()
            assert b".py" not in path.read_bytes()


def test_config_is_read_as_it_was_written(folder: Path) -> None:
    config = Config.read(folder)
    assert (config.signature, config.classes, config.preprocessor.std) == (TASK, CLASSES, STD)
    config.write(folder)
    assert Config.read(folder) == config


def test_files_are_what_the_runtime_needs(folders: dict[RuntimeName, Path]) -> None:
    assert [path.name for path in runtimes.files(folders["openvino"])] == ["model.xml", "model.bin"]
    assert [path.name for path in runtimes.files(folders["torch"])] == ["model.safetensors"]


def test_what_is_missing_comes_with_the_line_that_installs_it() -> None:
    missing = runtimes.missing()
    assert not {*RUNTIMES} & missing.keys()
    for name, hint in missing.items():
        assert hint.startswith("install a C++ compiler") or hint == f"pip install 'sizewise[{name}]'"


def test_every_runtime_of_the_records_is_registered_and_drawn() -> None:
    assert set(REGISTRY) == set(get_args(RuntimeName))
    for name, runtime in REGISTRY.items():
        assert runtime.name == name
        assert {shape for kind, shape in SHAPES.items() if kind[0] == name}
        for precision in runtime.precisions:
            assert SHAPES[name, precision] in OUTLINES


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_bf16_rounds_and_agrees_with_fp32(
    folders: dict[RuntimeName, Path], tmp_path: Path, runtime: RuntimeName
) -> None:
    shutil.copytree(folders[runtime], tmp_path, dirs_exist_ok=True)
    replace(Config.read(tmp_path), precision="bf16").write(tmp_path)
    full, half = runtimes.load(folders[runtime])(images(64)), runtimes.load(tmp_path)(images(64))
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, full, atol=0.03 * np.abs(full).max())
    if runtime == "torch":  # OpenVINO computes in fp32 where the processor has no bf16
        assert np.abs(half - full).max() > 1e-5


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_layers_of_a_folder_are_those_of_the_model(
    folders: dict[RuntimeName, Path], tmp_path: Path, runtime: RuntimeName
) -> None:
    net = families.load("cnn", TASK).build(8, seed=0)
    source = Source(eager.Deployable(net, PREPROCESSOR, TASK), TASK, folders["torch"] / "model.safetensors", tmp_path)
    x = images(7)
    theirs = eager.heard(source.module, TASK, x)
    ours = REGISTRY[runtime].backend.layers(folders[runtime], Config.read(folders[runtime]), source, x)
    assert {"net.convolution", "net.hidden", "net.head"} <= ours.keys() <= theirs.keys()
    for name, said in ours.items():
        np.testing.assert_allclose(said, theirs[name], atol=1e-4 * max(1, np.abs(said).max()))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"colour": "red"}, "config.json is damaged"),
        ({"runtime": "abacus"}, "config.json is damaged"),
        ({"format": 2}, "format 2; this version reads format 1"),
    ],
)
def test_a_config_that_was_changed_is_refused(folder: Path, change: dict[str, object], named: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(IntegrityError, match=named) as caught:
        runtimes.load(folder)
    assert "export" in caught.value.hint


@pytest.mark.parametrize("name", ["model.xml", "model.bin"])
def test_a_missing_file_is_named(folders: dict[RuntimeName, Path], tmp_path: Path, name: str) -> None:
    for path in folders["openvino"].iterdir():
        if path.name != name:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(IntegrityError, match=name) as caught:
        runtimes.load(tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_truncated_file_is_refused(folders: dict[RuntimeName, Path], tmp_path: Path, runtime: RuntimeName) -> None:
    for path in folders[runtime].iterdir():
        content = path.read_bytes()
        (tmp_path / path.name).write_bytes(content[: len(content) // 2] if path.name.startswith("model") else content)
    with pytest.raises((IntegrityError, DataError), match=str(tmp_path)):
        runtimes.load(tmp_path)


def test_an_intact_folder_is_verified(folder: Path) -> None:
    (folder / ".gitattributes").write_text("")  # not loaded, so not of interest
    assert runtimes.verify(folder) == Config.read(folder)


def test_any_flipped_byte_is_found(folder: Path) -> None:
    for path in [path for path in folder.iterdir() if path.name != "manifest.json"]:
        content = path.read_bytes()
        damaged = bytearray(content)
        damaged[len(content) // 2] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(IntegrityError, match=f"{path.name} was changed"):
            runtimes.verify(folder)
        path.write_bytes(content)
    runtimes.verify(folder)


def test_missing_and_unlisted_files_are_named(folder: Path) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    with pytest.raises(IntegrityError, match=r"model\.safetensors is missing"):
        runtimes.verify(folder)
    write_manifest(folder)
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(IntegrityError, match=r"model\.safetensors is not in the manifest"):
        runtimes.verify(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(IntegrityError, match=r"has no manifest\.json"):
        runtimes.verify(folder)


def test_a_runtime_that_is_not_installed_gives_the_pip_line(folders: dict[RuntimeName, Path]) -> None:
    code = f"""
import sys
from pathlib import Path

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "openvino":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
from sizewise import runtimes
from sizewise.errors import MissingExtraError
try:
    runtimes.load(Path({str(folders["openvino"])!r}))
except MissingExtraError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'openvino', which is not installed" in result.stdout
    assert "pip install 'sizewise[openvino]'" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["aotinductor", "executorch"])
def test_a_compiled_model_gives_the_models_logits_at_any_batch(
    folders: dict[RuntimeName, Path], tmp_path: Path, runtime: RuntimeName
) -> None:
    if hint := REGISTRY[runtime].missing():
        pytest.skip(hint)
    net = families.load("cnn", TASK).build(8, seed=0)
    source = Source(eager.Deployable(net, PREPROCESSOR, TASK), TASK, folders["torch"] / "model.safetensors", tmp_path)
    REGISTRY[runtime].backend.convert(source, "fp32", tmp_path)
    Config(1, "compiled", runtime, "fp32", "cnn", 8, TASK, CLASSES, PREPROCESSOR).write(tmp_path)
    session, reference = runtimes.load(tmp_path), runtimes.load(folders["torch"])
    for batch in (1, 7, 200):
        np.testing.assert_allclose(session(images(batch)), reference(images(batch)), atol=1e-4)
    first = session(images(4))
    kept = first.copy()
    session(images(4, seed=1))
    assert np.array_equal(first, kept)


def test_a_compiler_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "aotinductor" in runtimes.missing()
    source = Source(eager.Deployable(torch.nn.Identity(), PREPROCESSOR, TASK), TASK, tmp_path, tmp_path)
    with pytest.raises(MissingExtraError, match=r"needs a C\+\+ compiler, and there is none"):
        REGISTRY["aotinductor"].backend.convert(source, "fp32", tmp_path)
    assert list(tmp_path.iterdir()) == []
