"""How images lie in memory is nothing that a model may notice."""

from __future__ import annotations

import subprocess
import sys

import pytest

STEPS = """
import sys, torch
from sizewise import families
from sizewise.records import Signature
torch.set_num_threads(1)
image = Signature("classification", (1, 28, 28), 2)
net = families.arrange_module(families.load("resnet", image).build(int(sys.argv[1]), seed=0), image)
same = families.load("resnet", image).build(int(sys.argv[1]), seed=0)
x, y = torch.randn(32, 1, 28, 28), torch.arange(32) % 2
for _ in range(6):
    losses = []
    for module, batch in ((net, families.arrange(x, image)), (same, x)):
        module.zero_grad()
        losses.append(torch.nn.functional.cross_entropy(module(batch), y))
        losses[-1].backward()
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*([p.grad for p in m.parameters()] for m in (net, same)), rtol=1e-3, atol=1e-5)
"""


@pytest.mark.parametrize("width", [1, 2, 3, 8])
def test_narrow_residual_networks_train_channels_last_as_first(width: int) -> None:
    """In a process of its own: on some CPUs such a convolution wrote where it must not."""
    command = [sys.executable, "-c", STEPS, str(width)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
