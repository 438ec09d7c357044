"""Plans for a cluster: packing against every schedule there is, simulated steps against arithmetic by hand, budgets."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizewise.cli import main
from sizewise.cluster import nodes, prices
from sizewise.cluster.links import Link
from sizewise.cluster.memory import FITS
from sizewise.cluster.nodes import Nodes, pack
from sizewise.cluster.prices import Amount, Rate
from sizewise.cluster.simulate import Hardware, Layout, best, layouts, simulate
from sizewise.cluster.work import Transformer, Work
from sizewise.errors import BudgetError, UsageError

ROOT = Path(__file__).parents[1]
GPT3 = Transformer(layers=96, width=12288, heads=96, steps=2048, vocabulary=50257)
SMALL = Transformer(layers=32, width=4096, heads=32, steps=4096, vocabulary=32000)
HARDWARE = Hardware(
    nodes=16,
    devices=8,
    flops=1e15,
    efficiency=0.5,
    memory_bytes=80e9,
    inside=Link(400e9, 5e-6),
    between=Link(50e9, 2e-5),
)


def shortest(seconds: list[float], speeds: list[float]) -> float:
    """The shortest wall time of all schedules."""
    found = []
    for places in itertools.product(range(len(speeds)), repeat=len(seconds)):
        ends = [sum(s for s, p in zip(seconds, places, strict=True) if p == w) / v for w, v in enumerate(speeds)]
        found.append(max(ends))
    return min(found)


@given(
    st.lists(st.floats(0.1, 10), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(1, 2), st.sampled_from([1.0, 1.5, 3.0])), min_size=1, max_size=2),
)
@settings(max_examples=60, deadline=None)
def test_a_packing_keeps_its_bound_on_the_best_schedule(seconds: list[float], kinds: list[tuple[int, float]]) -> None:
    machines = [Nodes(1, workers, speed) for workers, speed in kinds]
    found = pack({str(i): s for i, s in enumerate(seconds)}, machines)
    optimum = shortest(seconds, [speed for workers, speed in kinds for _ in range(workers)])
    assert found.least <= optimum * (1 + 1e-9)
    assert optimum <= found.seconds * (1 + 1e-9)
    assert found.seconds <= found.bound * optimum * (1 + 1e-9)
    assert sum(load.trials for load in found.nodes) == len(seconds) == len(found.places)


def test_machines_are_paid_until_their_last_trial_ends() -> None:
    """By hand: 3600 and 1800 s on two machines, the second twice as fast; each takes 10 s to start."""
    found = pack({"long": 3600.0, "short": 1800.0}, [nodes.parse("1x1@2"), nodes.parse("1x1:2@6")], start=10)
    assert found.places == {"long": 1, "short": 0}
    assert found.seconds == pytest.approx(1810)
    assert found.cost == pytest.approx(1810 / 3600 * 2 + 1810 / 3600 * 6)
    idle = pack({"one": 60.0}, [nodes.parse("2x2@1")])
    assert sorted(load.cost for load in idle.nodes) == pytest.approx([0, 1 / 60])
    assert max(load.idle for load in idle.nodes) == 1


def test_thousands_of_machines_are_packed_at_once() -> None:
    trials = {str(i): 100.0 + i % 37 for i in range(20_000)}
    found = pack(trials, [nodes.parse("2000x8")])
    assert found.workers == 16_000
    assert found.least <= found.seconds <= sum(trials.values()) / 16_000 + max(trials.values())


@pytest.mark.parametrize("text", ["8", "0x4", "4x8@", "4x8:0", "4x8:fast", "4x8@1.2.3"])
def test_nodes_that_say_nothing_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"declares no nodes\nhint: write COUNTxWORKERS:SPEED@PRICE"):
        nodes.parse(text)


def test_collectives_take_what_a_ring_takes() -> None:
    """2·(n-1) messages of size/n, each with its latency."""
    link = Link(bandwidth=1e9, latency=0.5)
    assert link.all_reduce(8e9, 4) == pytest.approx(2 * 3 * (0.5 + 2.0))
    assert link.all_gather(8e9, 4) == link.reduce_scatter(8e9, 4) == pytest.approx(3 * 2.5)
    assert link.all_reduce(8e9, 1) == 0


def test_a_published_model_has_its_size() -> None:
    """Brown et al. 2020, arXiv:2005.14165, table 2.1: 175 billion parameters, 3.14e23 FLOP for 300 billion tokens."""
    work = GPT3.work()
    assert work.params == pytest.approx(175e9, rel=0.005)
    assert 3 * work.forward_flop / GPT3.steps * 300e9 == pytest.approx(3.14e23, rel=0.05)


def test_a_pipeline_waits_as_long_as_the_formula_says() -> None:
    """(p - 1)/(m + p - 1) of its time, Narayanan et al. 2021, arXiv:2104.04473, section 2.2."""
    for p, m in ((1, 4), (4, 4), (8, 32)):
        step = simulate(SMALL.work(), replace(HARDWARE, nodes=p, devices=1), Layout(pipeline=p, parts=m))
        assert step.bubble / (step.compute + step.bubble) == pytest.approx((p - 1) / (m + p - 1))


def test_a_step_by_hand() -> None:
    """Two devices, 10⁹ parameters in 4 bytes: 3·10¹² operations at 10¹² a second, and an all-reduce of 4·10⁹ bytes."""
    work = Work(10**9, 10, 1e12, 4, 4, 8, activation_bytes=1e9)
    machine = Hardware(1, 2, 2e12, 0.5, 40e9, Link(1e9), Link(1e8))
    step = simulate(work, machine, Layout(samples=1))
    assert (step.compute, step.communication, step.seconds) == pytest.approx((3, 4, 7))
    assert step.memory == pytest.approx((4e9, 4e9, 8e9, 1e9))
    assert step.speed == pytest.approx(2 * 3e12 / 7)
    hidden = simulate(work, replace(machine, overlap=1.0), Layout(samples=1))
    assert hidden.seconds == pytest.approx(3 + 4 - 2)
    parted = simulate(work, machine, Layout(stage=3, parts=2))
    assert parted.communication == pytest.approx(2 * 3 * 2)
    assert parted.memory == pytest.approx((2e9 + 4 * 0.4e9, 2e9, 4e9, 1e9))
    again = simulate(replace(work, kept_bytes=1e8), machine, Layout(recompute=True))
    assert again.compute == pytest.approx(4)
    assert again.memory[3] == pytest.approx(1e8 + 1e8)


def test_each_stage_holds_less() -> None:
    held = [simulate(SMALL.work(), HARDWARE, Layout(stage=stage)).memory_bytes for stage in range(4)]
    assert held == sorted(held, reverse=True)
    assert len(set(held)) == 4


def test_the_best_layout_fits_and_none_that_fits_is_faster() -> None:
    work, batch = SMALL.work(), 256
    found = best(work, HARDWARE, batch)
    assert found.memory_bytes <= FITS * HARDWARE.memory_bytes
    assert found.replicas * found.layout.samples * found.layout.parts == batch
    others = [simulate(work, HARDWARE, layout) for layout in layouts(work, HARDWARE, batch)]
    fitting = [s.seconds for s in others if s.memory_bytes <= FITS * HARDWARE.memory_bytes]
    assert 1 < len(fitting) < len(others)
    assert found.seconds == min(fitting)


def test_what_fits_nowhere_is_said() -> None:
    with pytest.raises(BudgetError, match=r"no way to share the model out fits 80 GB a device: the least is .* GB"):
        best(GPT3.work(), replace(HARDWARE, nodes=1), 8)
    with pytest.raises(UsageError, match="a pipeline of 3 parts for 32 blocks on 128 devices"):
        simulate(SMALL.work(), HARDWARE, Layout(pipeline=3))


def test_more_machines_never_do_more_each() -> None:
    speeds = [
        simulate(SMALL.work(), replace(HARDWARE, nodes=n), Layout(stage=1)).utilisation for n in (1, 2, 16, 256, 4096)
    ]
    assert speeds == sorted(speeds, reverse=True)


def test_simulate_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = ROOT / "examples" / "cluster.toml"
    assert main(["simulate", str(example)]) == 0
    said = capsys.readouterr().out
    assert "replicas of" in said
    assert "waiting for other replicas" in said
    assert main(["simulate", str(example), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["hours"] * 3600 == pytest.approx(record["steps"] * record["step"]["seconds"])
    assert record["cost"] == pytest.approx(record["hours"] * 128 * 24)
    changed = tmp_path / "changed.toml"
    changed.write_text(example.read_text() + "\n[layout]\nsamples = 1\nparts = 2\n")
    assert main(["simulate", str(changed)]) == 2
    assert "1024 replicas with 2 micro-batches of 1 are a batch of 2048, not of 1024" in capsys.readouterr().err
    changed.write_text(example.read_text().replace("width =", "wide ="))
    assert main(["simulate", str(changed)]) == 2
    assert f"{changed} describes no run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1e21", Amount(1e21, "FLOP")),
        ("1e21FLOP", Amount(1e21, "FLOP")),
        ("100h", Amount(100, "h")),
        ("4d", Amount(96, "h")),
        ("$1,500.50", Amount(1500.5, "USD")),
        ("500eur", Amount(500, "EUR")),
    ],
)
def test_amounts_are_read_as_they_are_written(text: str, amount: Amount) -> None:
    assert prices.parse(text) == amount


@pytest.mark.parametrize("text", ["", "h", "-5h", "0h", "5 apples", "$5h", "1e400"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no amount"):
        prices.parse(text)


def test_hours_and_money_buy_operations() -> None:
    rate = Rate(speed=1e15, price=20.0)
    assert rate.flop(Amount(1, "h")) == 3.6e18
    assert rate.flop(Amount(100, "USD")) == pytest.approx(5 * 3.6e18)
    assert rate.spent(3.6e18, "USD") == pytest.approx(20)
    with pytest.raises(UsageError, match=r"the price of an hour is not given\nhint: give --price"):
        Rate(speed=1e15).flop(Amount(100, "USD"))
    with pytest.raises(UsageError, match="operations a second that training reaches is not given"):
        Rate().flop(Amount(1, "h"))


def test_a_budget_in_money_is_the_same_as_in_operations(capsys: pytest.CaptureFixture[str]) -> None:
    """10 hours at 10¹¹ operations a second are 3.6·10¹⁵."""
    table = [str(ROOT / "examples" / "runs.csv"), "--params", "params", "--samples", "samples", "--loss", "loss"]
    base = ["fit", *table, "--seed", "seed", "--json", "--draws", "0"]
    found = []
    for budget in (["--budget", "3.6e15"], ["--budget", "30USD", "--price", "3"], ["--budget", "10h"]):
        main([*base, *budget, "--speed", "1e11"])
        found.append(json.loads(capsys.readouterr().out))
    flop, money, hours = found
    assert flop["optimum"] == money["optimum"] == hours["optimum"]
    assert money["spending"]["told"] == pytest.approx({"FLOP": 3.6e15, "h": 10.0, "money": 30.0})
    assert [more["extra"] for more in hours["spending"]["more"]] == pytest.approx([1, 10, 90])
    best_of = [more["ratio"]["value"] for more in money["spending"]["more"]]
    assert best_of == sorted(best_of, reverse=True)
    assert main([*base, "--budget", "30USD"]) == 2


def test_a_plan_is_packed_onto_declared_nodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--widths", "2,4,8", "--seeds", "2", "--epochs", "2", "--no-probes", "--out", str(tmp_path / "study")]
    assert main(["plan", "digits", *flags, "--nodes", "1x2@3.6,2x1:2@7.2", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    packing = planned["packing"]
    assert len(packing["nodes"]) == 3
    assert planned["workers"] == packing["workers"] == 4
    assert planned["seconds"] == packing["seconds"] >= packing["least"]
    assert set(packing["places"].values()) <= {0, 1, 2}
    assert len(packing["places"]) == len(planned["trials"])
    assert packing["cost"] == pytest.approx(sum(n["cost"] for n in packing["nodes"]))
    assert packing["worker_hour"] == pytest.approx((3.6 + 2 * 7.2) / (2 + 2 * 2))
    assert main(["plan", "digits", *flags, "--nodes", "none"]) == 2
    assert "'none' declares no nodes" in capsys.readouterr().err
