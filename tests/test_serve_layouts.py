"""Volumes and series over the Open Inference Protocol: the input is named after what a sample is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton

from sizewise import families, padding, runtimes
from sizewise.records import Signature
from sizewise.runtimes import Config, Manifest, eager, onnxruntime
from sizewise.store import sha256, write_json
from sizewise.tasks import Preprocessor

RNG = np.random.default_rng(0)
VOLUME = Signature("classification", (1, 9, 8, 10), 2)
SERIES = Signature("regression", (7, 3), 2, dynamic=True)
NUMBERS = Preprocessor((0.5, 1.0, 0.0), (2.0, 3.0, 1.0), True, (10.0, -10.0), (2.0, 1.0))

MODELS = {
    "volume": Config(
        1, "scan", "onnxruntime", "fp32", "cnn3d", 2, VOLUME, ("cube", "sphere"), Preprocessor((0.5,), (2.0,))
    ),
    "series": Config(1, "forecast", "torch", "fp32", "bigru", 4, SERIES, (), NUMBERS),
}
SAMPLES = {
    "volume": RNG.normal(size=(3, 1, 9, 8, 10)).astype(np.float32),
    "series": padding.pad([RNG.normal(size=(steps, 2)).astype(np.float32) for steps in (5, 2, 4)]),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An exported folder for each model."""
    root = tmp_path_factory.mktemp("layouts")
    for name, config in MODELS.items():
        net = families.load(config.family, config.signature).build(config.width, seed=0)
        config.write(root / name)
        if config.runtime == "torch":
            families.save_weights(net.state_dict(), root / name / "model.safetensors")
        else:
            model = eager.Deployable(net, config.preprocessor, config.signature)
            onnxruntime.export(model, config.signature, root / name)
        files = {path.name: sha256(path) for path in (root / name).iterdir()}
        write_json(root / name / "manifest.json", Manifest(1, files))
    return {name: root / name for name in MODELS}


@pytest.fixture(scope="module")
def client(folders: dict[str, Path]) -> Iterator[triton.InferenceServerClient]:
    """A client of a server of all of them."""
    command = [sys.executable, "-m", "sizewise.cli", "serve", *map(str, folders.values()), "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = json.loads(process.stdout.readline())["url"]
    yield triton.InferenceServerClient(url.removeprefix("http://"))
    process.terminate()
    process.wait(timeout=20)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_served_model_answers_as_its_runtime_does(
    folders: dict[str, Path], client: triton.InferenceServerClient, name: str, batch: int
) -> None:
    samples, config = SAMPLES[name][:batch], MODELS[name]
    tensor = triton.InferInput(name, samples.shape, "FP32")
    tensor.set_data_from_numpy(samples)
    output = runtimes.OUTPUTS[config.signature.problem]
    answers = client.infer(config.name, [tensor]).as_numpy(output)
    np.testing.assert_array_equal(answers, runtimes.load(folders[name])(samples))


@pytest.mark.parametrize(("name", "shape"), [("volume", [-1, 1, 9, 8, 10]), ("series", [-1, -1, 3])])
def test_its_metadata_says_what_a_sample_is(client: triton.InferenceServerClient, name: str, shape: list[int]) -> None:
    (tensor,) = client.get_model_metadata(MODELS[name].name)["inputs"]
    assert (tensor["name"], tensor["datatype"], tensor["shape"]) == (name, "FP32", shape)


@pytest.mark.parametrize(
    ("name", "shape"), [("volume", (1, 9, 8, 10)), ("series", (2, 5, 4)), ("volume", (1, 1, 9, 8, 11))]
)
def test_samples_of_another_shape_are_refused(
    client: triton.InferenceServerClient, name: str, shape: tuple[int, ...]
) -> None:
    tensor = triton.InferInput(name, shape, "FP32")
    tensor.set_data_from_numpy(np.zeros(shape, np.float32))
    with pytest.raises(triton.InferenceServerException, match="shape"):
        client.infer(MODELS[name].name, [tensor])
