"""The MNIST CNN as users of Keras and Lightning train it today: the peers that `benchmarks/train.py` runs.

    python benchmarks/train_peers.py SPEC.json

Each runs in its own environment, with pinned versions, made under `benchmarks/.venvs/` when it is first asked for.
A spec names the peer, an .npz of arrays, widths, epochs, batch size and rate; what comes back is one line of JSON a
model, on standard output: width, seconds of training with a look at the validation split after every epoch, accuracy.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

REQUIREMENTS = {
    "keras-tensorflow": ("tensorflow-cpu==2.21.0", "keras==3.15.1"),
    "keras-torch": ("torch==2.13.0", "keras==3.15.1"),
    "lightning": ("torch==2.13.0", "lightning==2.6.6"),
}

Answer = tuple[float, float]
"""Seconds and validation accuracy."""


def keras_cnn(spec: dict[str, Any], arrays: dict[str, Any]) -> Callable[[int], Answer]:
    """`compile` and `fit`, images with their channels last."""
    import keras

    x, x_validation = (np.moveaxis(arrays[name], 1, -1) for name in ("x", "x_validation"))
    layers = keras.layers

    def train(width: int) -> Answer:
        model = keras.Sequential(
            [
                keras.Input(x.shape[1:]),
                layers.Conv2D(width, 3, activation="relu"),
                layers.MaxPooling2D(2),
                layers.Flatten(),
                layers.Dense(4 * width, activation="relu"),
                layers.Dense(10),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(spec["lr"]), loss, metrics=["accuracy"])
        began = time.perf_counter()
        seen = model.fit(
            x,
            arrays["y"],
            batch_size=spec["batch"],
            epochs=spec["epochs"],
            validation_data=(x_validation, arrays["y_validation"]),
            verbose=0,
        )
        return time.perf_counter() - began, float(seen.history["val_accuracy"][-1])

    return train


def lightning_cnn(spec: dict[str, Any], arrays: dict[str, Any]) -> Callable[[int], Answer]:
    """A `LightningModule`, a `Trainer`, and loaders of tensors."""
    import lightning
    import torch
    import torch.nn.functional as F
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    train_set = TensorDataset(tensors["x"], tensors["y"])
    validation_set = TensorDataset(tensors["x_validation"], tensors["y_validation"])

    class Model(lightning.LightningModule):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Conv2d(1, width, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                nn.Linear(169 * width, 4 * width), nn.ReLU(), nn.Linear(4 * width, 10),
            )  # fmt: skip

        def training_step(self, batch: Any, _: int) -> Any:
            return F.cross_entropy(self.layers(batch[0]), batch[1])

        def validation_step(self, batch: Any, _: int) -> None:
            hits = (self.layers(batch[0]).argmax(1) == batch[1]).float().mean()
            self.log("accuracy", hits, batch_size=len(batch[1]))

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), spec["lr"])

    def train(width: int) -> Answer:
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_epochs=spec["epochs"],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        loaders = (DataLoader(train_set, spec["batch"], shuffle=True), DataLoader(validation_set, 512))
        began = time.perf_counter()
        trainer.fit(Model(width), *loaders)
        return time.perf_counter() - began, float(trainer.callback_metrics["accuracy"])

    return train


PEERS = {"keras-tensorflow": keras_cnn, "keras-torch": keras_cnn, "lightning": lightning_cnn}


def main(path: str) -> None:
    spec = json.loads(Path(path).read_text())
    os.environ["KERAS_BACKEND"] = spec["peer"].rpartition("-")[2]
    with np.load(spec["arrays"]) as file:
        arrays = {name: file[name] for name in file.files}
    train = PEERS[spec["peer"]](spec, arrays)
    for width in spec["widths"]:
        seconds, accuracy = train(width)
        print(json.dumps({"width": width, "seconds": seconds, "score": accuracy}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
