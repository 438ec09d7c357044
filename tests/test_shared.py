"""Studies whose workers meet at a URL: a real server of S3's protocol, and folders that stand for machines."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import torch
from moto.server import ThreadedMotoServer

from sizewise import tasks
from sizewise.cli import main
from sizewise.compress import prepare
from sizewise.errors import MissingExtraError, StoreError, UsageError
from sizewise.loop import Data, Start, train_one
from sizewise.methods import Distil
from sizewise.records import Engine, Origin, Reading, Recipe, Run, Trial, Weights
from sizewise.shared import Shared
from sizewise.store import Store, sha256
from sizewise.train import Source, train, untaught
from sizewise.train.worker import Training
from tests.builders import toy_task, trial
from tests.builders import train as train_here

RECIPE = Recipe(lr=0.01, batch_size=32, epochs=4)
TASK = toy_task()


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A client of a server that keeps every version of its objects."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name, value in (("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test"), ("DEFAULT_REGION", "us-east-1")):
            patch.setenv(f"AWS_{name}", value)
        made = boto3.client("s3")
        made.create_bucket(Bucket="studies")
        made.put_bucket_versioning(Bucket="studies", VersioningConfiguration={"Status": "Enabled"})
        yield made
    server.stop()


@pytest.fixture
def url(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A study's own place, and a cache of the user's that is empty."""
    monkeypatch.setenv("SIZEWISE_CACHE", str(tmp_path / "cache"))
    return f"s3://studies/{tmp_path.name}"


def versions(client: Any, url: str) -> dict[str, int]:
    """How often each object of a study was written."""
    prefix = url.removeprefix("s3://studies/") + "/"
    found = client.list_object_versions(Bucket="studies", Prefix=prefix).get("Versions", ())
    names = [version["Key"].removeprefix(prefix) for version in found]
    return {name: names.count(name) for name in names}


def outcome(run: Run) -> tuple[Any, ...]:
    """What must not depend on where a run was made."""
    losses = tuple((point.train_loss, point.validation_loss) for point in run.curve)
    return run.trial, run.validation, losses, run.files["model.safetensors"]


def digits(widths: tuple[int, ...]) -> tuple[list[Trial], Source]:
    task = tasks.load("digits", None)
    source = Source("digits", None, Reading(), "accuracy", task.fingerprint)
    return [trial(task, width, recipe=replace(RECIPE, epochs=1)) for width in widths], source


@pytest.mark.slow
def test_a_sweep_through_a_bucket_is_that_of_a_folder(client: Any, url: str, tmp_path: Path) -> None:
    trials, source = digits((2, 3))
    here = train(trials, source, Store(tmp_path / "folder"), workers=2)
    there = train(trials, source, Shared(tmp_path / "shared", url), workers=2)
    assert [outcome(run) for run in there] == [outcome(run) for run in here]
    archives = {name: count for name, count in versions(client, url).items() if name.endswith(".tar")}
    assert archives == {f"trials/{made.key}.tar": 1 for made in trials}
    # From another machine nothing is left to train: no worker could, without the task's data.
    nowhere = replace(source, name="no such task")
    again = train(trials, nowhere, Shared(tmp_path / "elsewhere", url), workers=2)
    assert [outcome(run) for run in again] == [outcome(run) for run in here]


def test_two_who_train_the_same_trial_publish_one_run(client: Any, url: str, tmp_path: Path) -> None:
    made = trial(TASK, recipe=RECIPE)
    first = train_one(made, Data.of(TASK), Store(tmp_path / "first"), Start())
    second = replace(first, seconds=first.seconds + 1)  # the same but for the time it took, as on another machine
    publishing = []
    for number, run in enumerate((first, second)):
        machine = Shared(tmp_path / f"machine-{number}", url)
        shutil.copytree(tmp_path / "first" / "trials", machine / "trials")
        publishing.append(threading.Thread(target=machine.save_run, args=(run,)))
    for thread in publishing:
        thread.start()
    for thread in publishing:
        thread.join()
    assert versions(client, url) == {f"trials/{made.key}.tar": 1}
    study = Shared(tmp_path / "study", url)
    study.collect(made.key)
    found = study.find_run(made)
    assert found is not None
    assert found.seconds in (first.seconds, second.seconds)


class StoppedError(Exception):
    """Stands for the loss of a machine."""


def test_a_lost_machines_trial_goes_on_elsewhere_from_its_checkpoint(
    client: Any, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sizewise.loop.run.CHECKPOINT_SECONDS", 0.0)
    made, data = trial(TASK, 3, recipe=RECIPE), Data.of(TASK)
    whole = train_one(made, data, Store(tmp_path / "whole"), Start())

    def lose(share: float) -> None:
        if share > 0.5:
            raise StoppedError

    with pytest.raises(StoppedError):
        train_one(made, data, Shared(tmp_path / "lost", url), Start(), lose)
    seen: list[float] = []
    other = Shared(tmp_path / "other", url)
    other.bring(made)
    train_one(made, data, other, Start(), seen.append)
    assert seen == [0.75, 1.0]
    study = Shared(tmp_path / "study", url)
    study.collect(made.key)
    found = study.find_run(made)
    assert found is not None
    assert outcome(found) == outcome(whole)
    assert "checkpoint.safetensors" not in str(client.list_objects_v2(Bucket="studies", Prefix=url[13:])["Contents"])


def test_data_reaches_machines_that_do_not_see_it(url: str, tmp_path: Path) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "bands.npz"
    np.savez(path, x=rng.normal(size=(120, 8, 8)).astype(np.float32), y=np.arange(120) % 3)
    task = tasks.load(str(path))
    source, made = Source(str(path), None, Reading(), "", task.fingerprint), trial(task, recipe=RECIPE)
    study = Shared(tmp_path / "study", url)
    study.offer_data(source.fingerprint, path)
    path.unlink()
    machine = Shared(tmp_path / "machine", url)
    machine.root.mkdir()
    work = Training(source, machine, untaught, Counter([made.size]))
    assert work(made, lambda share: None) is None
    study.collect(made.key)
    assert study.find_run(made) is not None


def test_what_trials_start_from_reaches_other_machines(url: str, tmp_path: Path) -> None:
    """A teacher that was trained in the study's folder, and weights that the study keeps."""
    study, machine = Shared(tmp_path / "study", url), Shared(tmp_path / "machine", url)
    teacher = train_here(trial(TASK, 4, recipe=RECIPE), TASK, study.root)
    weights = study.trial_folder(teacher.trial.key) / "model.safetensors"
    digest = sha256(weights)
    study.weights(digest).parent.mkdir()
    study.weights(digest).write_bytes(weights.read_bytes())
    pupil = replace(teacher.trial, width=2, origin=Origin(Distil(), teacher.trial.key))
    started = replace(teacher.trial, seed=5, start=Weights(digest))
    study.offer([pupil, started])
    for made in (pupil, started):
        machine.bring(made)
    data = Data.of(TASK)
    taught, begun = prepare(pupil, machine, data), prepare(started, machine, data)
    expected = prepare(pupil, study, data)
    assert taught.teacher is not None
    assert expected.teacher is not None
    assert torch.equal(taught.teacher, expected.teacher)
    assert begun.weights is not None


def test_machines_agree_on_how_the_steps_of_a_size_are_computed(url: str, tmp_path: Path) -> None:
    """Both looked, at the same time, and found different ways: the seeds of a size are compared like with like."""
    first, second = Shared(tmp_path / "first", url), Shared(tmp_path / "second", url)
    Store(first.root).once("engine/size.json", Engine, lambda: Engine("traced"))
    assert second.once("engine/size.json", Engine, lambda: Engine("compiled")).tier == "compiled"
    assert first.once("engine/size.json", Engine, lambda: Engine("reference")).tier == "compiled"


@pytest.mark.parametrize("share", ["bucket/study", "file:///tmp/study", "memory://study"])
def test_a_place_that_others_cannot_reach_is_refused(share: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "digits", "--share", share, "--widths", "2,3"]) == 2
    said = capsys.readouterr().err
    assert f"sweep.share is {share}" in said
    assert "hint: it must be a URL that several machines reach" in said


def test_a_url_that_nothing_reaches_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing reaches URLs of the kind 'gopher'\nhint: try s3://"):
        Shared(tmp_path, "gopher://hole").collect("key")
    with pytest.raises(MissingExtraError, match=r"gs://bucket cannot be reached: .*gcsfs.*\nhint: pip install"):
        Shared(tmp_path, "gs://bucket").collect("key")


def test_a_bucket_that_is_not_there_is_one_clear_error(url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot reach s3://no-such-bucket/a: .*\nhint: check the address"):
        Shared(tmp_path, "s3://no-such-bucket/a").offer([])
