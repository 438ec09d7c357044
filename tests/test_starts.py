"""What a run starts from: files, other runs, larger models' weights; and that a study knows when they change."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sizewise import config, families, starts
from sizewise.cli import main
from sizewise.compress import prepare
from sizewise.config import Study, Sweep
from sizewise.errors import DataError, IntegrityError, UsageError
from sizewise.families import Family
from sizewise.families.weights import read_weights, save_weights
from sizewise.loop import Data, train_one
from sizewise.methods import Distil, Narrow
from sizewise.records import Origin, Plan, Recipe, Run, Signature, Trial, Weights
from sizewise.starts.take import Taken, select, take
from sizewise.store import Store
from sizewise.study import Workspace
from tests.builders import toy_task, train, trial, weights

TOY = toy_task()
STILL = Recipe(lr=1e-20, epochs=1, batch_size=64)
"""So small a rate that weights end where they started."""

IMAGES = Signature("classification", (1, 16, 16), 10)
SERIES = Signature("classification", (20, 3), 4)
TEXTS = Signature("classification", (12,), 3, vocabulary=40, dynamic=True)
LANGUAGE = Signature("language modelling", (12,), 40, vocabulary=40)
FAMILIES = {
    "cnn": IMAGES,
    "resnet": IMAGES,
    "lstm": SERIES,
    "bigru": SERIES,
    "transformer": LANGUAGE,
    "keras:examples.keras_mnist:model": replace(IMAGES, input_shape=(1, 28, 28)),
    "transformers:BertForSequenceClassification": TEXTS,
}


def taken(module: torch.nn.Module, file: Mapping[str, Tensor], family: Family, width: int, **how: bool) -> Taken:
    return take(module, file, family, width, Weights("", **how))


# -- Weight selection -------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=3))
def test_selected_elements_are_an_even_grid_of_the_larger_tensor(sizes: list[tuple[int, int]]) -> None:
    """In order, none twice, gaps that differ by at most one, and everything where nothing is to be cut."""
    small, large = [s for s, _ in sizes], [s + more for s, more in sizes]
    chosen = select(torch.arange(torch.Size(large).numel()).reshape(large), small)
    assert chosen.shape == torch.Size(small)
    for dimension, _ in enumerate(sizes):
        stride = torch.Size(large[dimension + 1 :]).numel()
        places = chosen.movedim(dimension, 0).reshape(small[dimension], -1)[:, 0] // stride % large[dimension]
        gaps = places.diff()
        assert (gaps >= 1).all()
        assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1
    if small == large:
        assert chosen.flatten().tolist() == list(range(chosen.numel()))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 6))
def test_of_doubled_channels_one_of_each_is_left(width: int, times: int, together: int) -> None:
    """What a flattened channel has become stays together, and so does the order within it."""
    small = torch.rand(3, width * together)
    large = small.reshape(3, width, together).repeat_interleave(times, dim=1).flatten(1)
    assert torch.equal(select(large, small.shape, together), small)


@pytest.mark.parametrize(("name", "layer"), [("cnn", "hidden.weight"), ("lstm", "layers.0.forth.weight_hh_l0")])
def test_channels_stay_matched_between_layers(name: str, layer: str) -> None:
    """A layer behind a flattened convolution, and the gates of an LSTM: units repeated are the units again."""
    family = families.load(name, FAMILIES[name])
    small, large = family.build(3, seed=0).state_dict()[layer], family.build(6, seed=0).state_dict()[layer]
    blocks = small.shape[1] // 3
    wide = small.repeat_interleave(2, 0).reshape(large.shape[0], 3, blocks).repeat_interleave(2, 1).reshape(large.shape)
    module = family.build(3, seed=1)
    found = taken(module, family.build(6, seed=0).state_dict() | {layer: wide}, family, 3, cut=True)
    assert not found.left
    assert torch.equal(module.state_dict()[layer], small)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_takes_its_part_of_a_larger_model(name: str) -> None:
    family = families.load(name, FAMILIES[name])
    large = families.distinct(family.build(12, seed=0).state_dict())
    module = family.build(4, seed=1)
    found = taken(module, large, family, 4, cut=True, same_tokens=True)
    assert not found.left, found.left
    families.check_output(family, 4)
    for n, tensor in module.state_dict().items():
        assert n not in large or torch.isin(tensor, large[n]).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_takes_all_of_its_own_weights_and_nothing_of_another_size(name: str) -> None:
    family = families.load(name, FAMILIES[name])
    file = families.distinct(family.build(8, seed=0).state_dict())
    module = family.build(8, seed=1)
    assert not taken(module, file, family, 8, same_tokens=True).left
    assert all(torch.equal(tensor, module.state_dict()[n]) for n, tensor in file.items())
    assert taken(family.build(2, seed=1), file, family, 2).matrices == 0


def test_a_thin_module_takes_its_part_of_the_whole() -> None:
    family = families.load("thin:tests.own_models:fixed", Signature("classification", (1, 8, 8), 10))
    module = family.build(16, seed=0)
    assert not taken(module, family.build(32, seed=0).state_dict(), family, 16, cut=True).left


def test_a_deeper_model_gives_its_first_layers() -> None:
    family = families.load("transformer", LANGUAGE)
    deep = families.distinct(family.build(96, seed=0).state_dict())
    assert any(name.startswith("stack.blocks.2.") for name in deep)
    found = taken(family.build(64, seed=1), deep, family, 64, cut=True, same_tokens=True)
    assert not found.left
    assert found.unused > 0


# -- Transfer ---------------------------------------------------------------------------------------------------------


def test_another_number_of_classes_leaves_the_head_at_random() -> None:
    """Also when larger tensors are cut: classes do not follow the width."""
    many, few = (families.load("cnn", replace(IMAGES, outputs=n)) for n in (10, 3))
    for width, cut in ((4, False), (2, True)):
        module, fresh = few.build(width, seed=1), few.build(width, seed=1).state_dict()
        found = taken(module, many.build(4, seed=0).state_dict(), few, width, cut=cut)
        assert set(found.left) == {"head.weight", "head.bias"}
        assert torch.equal(module.state_dict()["head.weight"], fresh["head.weight"])
        assert not torch.equal(module.state_dict()["hidden.weight"], fresh["hidden.weight"])


def test_a_layer_behind_images_of_another_size_is_left() -> None:
    """Its inputs are other places, although cutting would give it as many."""
    large = families.load("cnn", replace(IMAGES, input_shape=(1, 20, 20))).build(12, seed=0).state_dict()
    small = families.load("cnn", IMAGES)
    found = taken(small.build(4, seed=1), large, small, 4, cut=True)
    assert found.left == {"hidden.weight": "behind images of another size"}


def test_a_hub_file_without_the_wrapper_in_its_names_fits() -> None:
    """Files of that library know nothing of the module that its models are wrapped in here."""
    family = families.load("transformers:BertForSequenceClassification", TEXTS)
    whole = family.build(4, seed=0).state_dict()
    for prefix in ("model.", "model.bert."):
        file = {n.removeprefix(prefix): t for n, t in whole.items() if n.startswith(prefix)}
        module = family.build(4, seed=1)
        found = taken(module, file, family, 4, same_tokens=True)
        assert {n for n in whole if n.startswith(prefix)} == set(found.names)


def test_vectors_of_other_tokens_are_left() -> None:
    family = families.load("transformer", LANGUAGE)
    file, module = families.distinct(family.build(16, seed=0).state_dict()), family.build(16, seed=1)
    found = taken(module, file, family, 16)
    assert found.left["entry.layer.weight"] == "vectors of other tokens"
    assert "stack.blocks.0.hidden.weight" in found.names


# -- Trials -----------------------------------------------------------------------------------------------------------


def test_trials_without_a_start_keep_the_keys_that_they_had() -> None:
    made = Trial("digits", "0123456789abcdef", "cnn", 8, 1.0, Recipe(), 3)
    assert made.key == "8eadfd2a492167ed"
    assert replace(made, origin=Origin(Narrow(), "00ff")).key == "1e2a3f6eac1ed809"
    started = [replace(made, start=Weights(*how)) for how in (("aa",), ("bb",), ("aa", True), ("aa", False, True))]
    assert len({made.key, *(t.key for t in started)}) == 5


def started(made: Trial, source: str, root: Path) -> Trial:
    """The trial from weights, which lie in the study's folder then."""
    found = starts.find(source, TOY.fingerprint)
    assert found is not None
    found.keep([made], Store(root))
    return found.begin([made])[0]


@pytest.fixture
def parent(tmp_path: Path) -> Run:
    return train(trial(TOY, 6, recipe=Recipe(epochs=2)), TOY, tmp_path / "parent")


def file_of(run: Run, root: Path) -> Path:
    return Store(root).trial_folder(run.trial.key) / "model.safetensors"


def test_a_run_starts_where_its_file_says(tmp_path: Path, parent: Run) -> None:
    made = started(trial(TOY, 6, seed=5, recipe=STILL), str(file_of(parent, tmp_path / "parent")), tmp_path)
    run = train_one(made, Data.of(TOY), Store(tmp_path), prepare(made, Store(tmp_path), Data.of(TOY)))
    assert all(torch.equal(a, weights(parent, tmp_path / "parent")[n]) for n, a in weights(run, tmp_path).items())
    assert run.validation.loss == pytest.approx(parent.validation.loss, abs=1e-6)


def test_a_student_starts_like_the_model_it_is_compared_with(tmp_path: Path, parent: Run) -> None:
    store = Store(tmp_path / "parent")
    made = started(trial(TOY, 3, recipe=STILL), f"select:{file_of(parent, store.root)}", store.root)
    taught = replace(made, origin=Origin(Distil(), parent.trial.key))
    alone, student = (prepare(t, store, Data.of(TOY)) for t in (made, taught))
    assert alone.weights is not None
    assert student.weights is not None
    assert all(torch.equal(tensor, student.weights[n]) for n, tensor in alone.weights.items())
    assert (alone.teacher is None, student.teacher is None) == (True, False)


def test_one_run_of_a_study_is_named_by_its_key(tmp_path: Path, parent: Run) -> None:
    found = starts.find(f"{tmp_path / 'parent'}:{parent.trial.key}", TOY.fingerprint)
    assert found is not None
    assert found.weights(6, 0) == Weights(parent.files["model.safetensors"], same_tokens=True)


def test_the_kept_copy_outlives_its_file_and_is_checked(tmp_path: Path, parent: Run) -> None:
    source = tmp_path / "weights.safetensors"
    shutil.copyfile(file_of(parent, tmp_path / "parent"), source)
    made = started(trial(TOY, 6, recipe=STILL), str(source), tmp_path)
    source.unlink()
    assert starts.initial(made, Store(tmp_path), TOY.signature) is not None
    (kept,) = (tmp_path / "starts").iterdir()
    kept.write_bytes(b"something else")
    with pytest.raises(IntegrityError, match="damaged"):
        starts.initial(made, Store(tmp_path), TOY.signature)


def test_a_file_of_another_family_is_refused(tmp_path: Path) -> None:
    save_weights({"elsewhere.weight": torch.rand(3, 3)}, tmp_path / "other.safetensors")
    found = starts.find(str(tmp_path / "other.safetensors"), TOY.fingerprint)
    assert found is not None
    with pytest.raises(DataError, match="width 3 can take no weights") as caught:
        found.notes(families.load("cnn", TOY.signature), [trial(TOY, 3, recipe=STILL)])
    assert "same family" in caught.value.hint


def test_what_was_not_taken_is_named_and_counted(tmp_path: Path) -> None:
    other = families.load("cnn", replace(TOY.signature, outputs=7))
    save_weights(other.build(6, seed=0).state_dict() | {"extra": torch.ones(2)}, tmp_path / "w.safetensors")
    found = starts.find(f"select:{tmp_path / 'w.safetensors'}", TOY.fingerprint)
    assert found is not None
    trials = [trial(TOY, width, recipe=STILL) for width in (3, 6)]
    notes = found.notes(families.load("cnn", TOY.signature), trials)
    said = [note.split(": ", 1)[1] for note in notes]
    assert said[0].startswith("4 of 6 tensors at width 3; not taken: head.weight (7 × 24 and not 3 × 12), head.bias (7")
    assert said[-1].endswith("1 of the file's have no place in the model")


@pytest.mark.parametrize("name", ["absent.safetensors", "select:absent", "select:"])
def test_what_is_not_there_is_said_with_what_may_be_given(name: str) -> None:
    with pytest.raises(UsageError, match="no weights to start from") as caught:
        starts.find(name, "")
    assert "hf:owner/name" in caught.value.hint


def test_a_file_that_holds_no_weights_is_named(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"not weights")
    found = starts.find(str(tmp_path / "w.safetensors"), "")
    assert found is not None
    with pytest.raises(DataError, match="cannot read weights"):
        found.notes(families.load("cnn", TOY.signature), [trial(TOY, 3, recipe=STILL)])


def test_seeds_that_share_their_weights_are_said_to(tmp_path: Path, parent: Run) -> None:
    """Their scatter is that of fine-tuning alone."""
    found = starts.find(str(file_of(parent, tmp_path / "parent")), TOY.fingerprint)
    assert found is not None
    family = families.load("cnn", TOY.signature)
    counts = [len(found.notes(family, [trial(TOY, 6, seed, recipe=STILL) for seed in range(n)])) for n in (1, 2)]
    assert counts == [1, 2]


# -- Studies ----------------------------------------------------------------------------------------------------------

FEW = ["--widths", "2,4", "--seeds", "2", "--epochs", "1", "--no-probes", "--workers", "1"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trained study of the digits."""
    root = tmp_path_factory.mktemp("base") / "digits"
    assert main(["train", "digits", "--out", str(root), *FEW]) == 0
    return root


def planned(root: Path, start: str) -> Plan:
    """The plan of a study, kept in its folder as training would keep it."""
    sweep = Sweep(widths=(2, 4), seeds=2, probes=False)
    space = Workspace.create(Study("digits", start=start, recipe=Recipe(epochs=1, batch_size=32), sweep=sweep), root)
    made = space.plan()
    config.write(space.study, root / "study.toml")
    space.store.save("plan.json", made)
    return made


def test_a_ladder_starts_from_another_studys_largest_runs(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "selected"
    assert main(["train", "digits", "--out", str(root), "--start", f"select:{base}", *FEW]) == 0
    said = capsys.readouterr().err
    assert f"note: started from select:{base}: 6 of 6 tensors at width 2, 4" in said
    largest = {run.trial.seed: run for run in Store(base).runs() if run.trial.width == 4}
    runs = Store(root).runs()
    assert len(runs) == 4
    for run in runs:
        assert run.trial.start == Weights(largest[run.trial.seed].files["model.safetensors"], True, True)
    moved = shutil.copytree(root, tmp_path / "moved")
    config.write(replace(config.read(moved / "study.toml"), start="select:gone"), moved / "study.toml")
    assert Workspace.open(moved).plan().finished == 4
    assert "the study's own copy is used" in capsys.readouterr().err
    main(["fit", str(root)])
    assert "law of fine-tuning" in capsys.readouterr().out
    assert main(["report", str(root)]) == 0
    page = (root / "report.html").read_text()
    assert f"started from select:{base}" in page
    assert "not of training from random ones" in page


def test_a_study_starts_width_by_width_from_another(base: Path, tmp_path: Path) -> None:
    runs = {(run.trial.width, run.trial.seed): run for run in Store(base).runs()}
    for made in planned(tmp_path, str(base)).trials:
        assert made.start == Weights(runs[made.width, made.seed].files["model.safetensors"], same_tokens=True)


def test_a_changed_file_makes_other_trials_and_the_same_file_the_same(base: Path, tmp_path: Path) -> None:
    run = next(run for run in Store(base).runs() if run.trial.width == 4)
    source, root = tmp_path / "w.safetensors", tmp_path / "study"
    shutil.copyfile(file_of(run, base), source)
    first = planned(root, f"select:{source}")
    assert planned(root, f"select:{source}").costs == first.costs  # the same plan, not one made again
    changed = {name: tensor + 1 for name, tensor in read_weights(source).items()}
    save_weights(changed, source)
    again = Workspace.open(root).plan()
    source.unlink()
    with pytest.raises(UsageError, match="no weights to start from"):
        Workspace.open(root).plan()  # never trained: there is no copy
    assert {t.key for t in again.trials}.isdisjoint(t.key for t in first.trials)
    assert [replace(t, start=None) for t in again.trials] == [replace(t, start=None) for t in first.trials]


def test_a_width_that_a_study_does_not_have_is_refused(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["plan", "digits", "--out", str(tmp_path), "--start", str(base), *FEW, "--widths", "2,3"]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "no run of width 3 to start from; its widths are 2, 4" in said
    assert f"select:{base}" in said
    assert not list(tmp_path.iterdir())


def test_two_starts_are_compared_by_seed(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sides = [f"width=3,start=select:{base}", "width=3"]
    command = ["compare", *sides, "--out", str(tmp_path), "--seeds", "2", "--epochs", "1", "--workers", "1"]
    assert main(command) in (0, 3)
    runs = Store(tmp_path).runs()
    assert sorted(run.trial.start is None for run in runs) == [False, False, True, True]
    assert "6 of 6 tensors at width 3" in capsys.readouterr().err
