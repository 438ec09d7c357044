"""One model on two workers of a real Ray cluster of two nodes on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from sizewise import tasks
from sizewise.distributed import on_ray
from sizewise.records import Reading, Recipe, Trial
from sizewise.train import Source
from tests.builders import train

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def cluster(ray_alone: None) -> Iterator[None]:
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    try:
        made.add_node(num_cpus=1)
        ray.init(address=made.address, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": path}})
        yield
    finally:
        ray.shutdown()
        made.shutdown()


def test_ray_trains_as_one_process_does(cluster: None, tmp_path: Path) -> None:
    task = tasks.load("digits")
    recipe = Recipe(lr=5e-3, batch_size=64, epochs=3)
    trial = Trial("digits", task.fingerprint, "cnn", 8, 1.0, recipe, 0)
    source = Source("digits", None, Reading(), "", task.fingerprint)
    (two,) = on_ray.train([trial], source, tmp_path / "two", workers=2)
    one = train(trial, task, tmp_path / "one")
    assert (two.parallelism.strategy, two.parallelism.workers) == ("ddp", 2)
    assert "the whole model fits" in two.parallelism.reason
    for mine, other in zip(two.curve, one.curve, strict=True):
        assert mine.train_loss == pytest.approx(other.train_loss, rel=1e-5)
        assert mine.validation_loss == pytest.approx(other.validation_loss, rel=1e-5)
        assert mine.validation_score == pytest.approx(other.validation_score)
