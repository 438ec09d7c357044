"""What a transcriber's graph says in labels, for clients that have nothing but the graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sizewise import families
from sizewise.records import Signature
from sizewise.runtimes import eager, onnxruntime, openvino
from sizewise.runtimes.labels import Labels
from sizewise.tasks import Preprocessor
from sizewise.tasks.problems.transcription import collapse

HEARD = Signature("transcription", (40, 8), 5, dynamic=True)

FRAMES = st.integers(1, 12).flatmap(
    lambda steps: st.lists(st.lists(st.integers(0, 4), min_size=steps, max_size=steps), min_size=1, max_size=4)
)


@given(FRAMES)
def test_labels_are_those_of_the_decoder_that_scores(rows: list[list[int]]) -> None:
    frames = np.array(rows)
    said = Labels()(torch.nn.functional.one_hot(torch.tensor(frames), 5).float()).numpy()
    meant = collapse(frames)
    assert said.shape == frames.shape
    np.testing.assert_array_equal(said[:, : meant.shape[1]], meant[:, : frames.shape[1]])
    assert not said[:, meant.shape[1] :].any()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_exported_transcriber_says_labels_itself(runtime: str, tmp_path: Path) -> None:
    net = families.load("cnn1d", HEARD).build(16, seed=0)
    module = eager.Deployable(net, Preprocessor((0.0,) * 8, (1.0,) * 8), HEARD)
    onnxruntime.export(module, HEARD, tmp_path)
    if runtime == "onnxruntime":
        graph = onnxruntime.open_graph(tmp_path / "model.onnx", 1)
    else:
        openvino.convert_file(tmp_path / "model.onnx", tmp_path / "model.xml")
        graph = openvino.open_graph(tmp_path / "model.xml", "fp32", 1)
    for n, steps in ((1, 40), (5, 23)):
        x = np.random.default_rng(n).standard_normal((n, steps, 8)).astype(np.float32)
        logits, labels = graph(x)
        meant = collapse(logits.argmax(axis=2))
        assert labels.shape == logits.shape[:2]
        np.testing.assert_array_equal(labels[:, : meant.shape[1]], meant)
        assert not labels[:, meant.shape[1] :].any()
