"""The detector family: sizes, costs, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from sizewise import families
from sizewise.compress.narrow import narrow
from sizewise.errors import UsageError
from sizewise.records import Signature

SIGNATURE = Signature("detection", (3, 48, 64), 3)


def test_it_is_the_family_of_detection() -> None:
    assert families.suited(SIGNATURE) == "detector"


@pytest.mark.parametrize("size", [(48, 64), (50, 61), (16, 33)])
def test_the_grid_is_a_quarter_of_the_image_rounded_up(size: tuple[int, int]) -> None:
    module = families.load("detector", Signature("detection", (3, *size), 3)).build(2, seed=0).eval()
    assert module(torch.zeros(2, 3, *size)).shape == (2, 7, -(-size[0] // 4), -(-size[1] // 4))


def test_it_grows_with_the_width() -> None:
    family = families.load("detector", SIGNATURE)
    params = [family.params(width) for width in (1, 2, 4, 8, 16, 32)]
    assert params == sorted(set(params))
    assert params[0] < 5_000
    assert params[-1] > 1_000_000


def test_cells_start_out_empty() -> None:
    module = families.load("detector", SIGNATURE).build(8, seed=0).eval()
    with torch.no_grad():
        heat = module(torch.randn(2, 3, 48, 64))[:, :3].sigmoid()
    assert 0.02 < heat.mean() < 0.1


def test_a_batch_answers_as_its_samples_do() -> None:
    module = families.load("detector", SIGNATURE).build(4, seed=0).eval()
    x = torch.randn(5, 3, 48, 64)
    with torch.no_grad():
        torch.testing.assert_close(module(x)[2:3], module(x[2:3]), atol=1e-5, rtol=1e-5)


def test_it_is_pruned_to_a_smaller_one() -> None:
    family = families.load("detector", SIGNATURE)
    state = narrow(family.build(6, seed=0), family, 3)
    small = family.build(3)
    small.load_state_dict(state)
    assert small.eval()(torch.zeros(1, 3, 48, 64)).isfinite().all()


@pytest.mark.parametrize(
    "signature",
    [
        Signature("classification", (3, 48, 64), 3),
        Signature("detection", (3, 8, 64), 3),
        Signature("detection", (3, 32, 32), 3),
        Signature("detection", (3, 8, 64, 64), 3),
    ],
)
def test_it_refuses_other_tasks(signature: Signature) -> None:
    with pytest.raises(UsageError, match="detector family cannot"):
        families.load("detector", signature)


def test_a_single_small_sample_can_be_learned_from() -> None:
    module = families.load("detector", Signature("detection", (3, 16, 33), 3)).build(2, seed=0).train()
    assert module(torch.randn(1, 3, 16, 33)).isfinite().all()
