"""The Keras code of the reference case runs unchanged, in sizes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sizewise import families, tasks
from sizewise.config import Study, resolve
from sizewise.errors import UsageError
from sizewise.records import Recipe, Signature

NAME = "keras:examples.keras_mnist:model"
MNIST = Signature("classification", (1, 28, 28), 10)


def test_reference_model_has_the_published_sizes() -> None:
    family = families.load(NAME, MNIST)
    assert (family.params(32), family.params(16)) == (693_962, 173_930)
    assert families.parameters(family.build(16, seed=0)) == 173_930


def test_answers_are_logits_of_images_with_their_channels_first() -> None:
    module = families.load(NAME, MNIST).build(4, seed=0).eval()
    x = torch.randn(3, 1, 28, 28)
    answers = module(x)
    assert answers.shape == (3, 10)
    assert not torch.allclose(answers.sum(1), torch.ones(3))
    kernel, bias = (module.state_dict()[f"model._torch_params.sequential/conv2d/{n}"] for n in ("kernel", "bias"))
    first = torch.relu(torch.nn.functional.conv2d(x, kernel.permute(3, 2, 0, 1), bias))
    pooled = torch.nn.functional.max_pool2d(first, 2).permute(0, 2, 3, 1).flatten(1)
    weights = module.state_dict()
    hidden = torch.relu(pooled @ weights["model._torch_params.sequential/dense/kernel"])
    torch.testing.assert_close(
        answers, hidden @ weights["model._torch_params.sequential/dense_1/kernel"], rtol=1e-4, atol=1e-5
    )


def test_one_seed_gives_one_model_and_its_file_the_same(tmp_path: Path) -> None:
    family = families.load(NAME, MNIST)
    one, two, other = (family.build(2, seed=s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
    families.save_weights(one, tmp_path / "model.safetensors")
    again = family.build(2, weights=tmp_path / "model.safetensors").state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)


def test_a_study_trains_as_the_model_was_compiled() -> None:
    task = tasks.load("digits")
    study = resolve(Study("digits", family="keras:examples.keras_mnist:model"), task)
    assert (study.recipe.optimizer, study.recipe.lr, study.recipe.batch_size) == ("adam", 1e-3, 32)
    assert (study.recipe.schedule, study.recipe.epochs > 0) == ("constant", True)
    own = Recipe(lr=0.01, epochs=3, batch_size=16)
    assert resolve(Study("digits", family=NAME, recipe=own), task).recipe == own


def test_what_is_no_keras_model_is_refused() -> None:
    with pytest.raises(UsageError, match="is a Sequential"):
        families.load("keras:tests.own_models:fixed", MNIST)
    with pytest.raises(UsageError, match="cannot be built at width 1"):
        families.load(NAME, Signature("classification", (1, 3, 3), 10)).params(1)


def test_another_backend_is_refused() -> None:
    code = (
        "import os, sys, types; k = types.ModuleType('keras'); "
        "k.backend = types.SimpleNamespace(backend=lambda: 'jax'); sys.modules['keras'] = k\n"
        "from sizewise.families.keras import builder\n"
        "try: builder('a:b')\nexcept Exception as e: print(e)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "backend 'jax'" in found.stdout
    assert "KERAS_BACKEND=torch" in found.stdout


@pytest.mark.slow
def test_a_sweep_of_the_reference_case_goes_through(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sizewise.cli", "run", "digits", "--family", NAME, "--widths", "2,4,8,16"]
    command += ["--seeds", "2", "--epochs", "4", "--no-probes", "--workers", "1", "--out", str(tmp_path / "study")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode in (0, 3), result.stdout + result.stderr
    assert "Traceback" not in result.stderr
