"""The update over trials against torch.optim.AdamW and torch's clipping, trial by trial."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from emotion_sweeps.lora.packed_store import Entry, SlotStore
from emotion_sweeps.training.packed.optimizer import StepOf, optimizer_step

ENTRIES = [
    Entry("head.bias", (3,), "head"),
    Entry("layer.A", (0, 5), "adapter"),
    Entry("layer.B", (7, 0), "adapter"),
    Entry("head.weight", (3, 6), "head"),
]
RANKS = [2, 4, 3]
TRIALS = [
    {"adapter_rate": 1e-2, "head_rate": 1e-1, "weight_decay": 0.1, "max_norm": 0.5, "betas": (0.9, 0.999), "eps": 1e-8},
    {"adapter_rate": 3e-3, "head_rate": 3e-3, "weight_decay": 0.0, "max_norm": None, "betas": (0.8, 0.99), "eps": 1e-6},
    {
        "adapter_rate": 5e-2,
        "head_rate": 1e-3,
        "weight_decay": 0.5,
        "max_norm": 100.0,
        "betas": (0.95, 0.9),
        "eps": 1e-3,
    },
]


def new_store(dtype: torch.dtype = torch.float64) -> SlotStore:
    return SlotStore(ENTRIES, 3, 5, dtype=dtype, device=torch.device("cpu"))


def draw(slot: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {e.name: torch.randn(e.sized(RANKS[slot]), generator=generator, dtype=torch.float64) for e in ENTRIES}


def steps_at(number: int, slots: list[int]) -> list[StepOf]:
    return [StepOf(slot=slot, number=number, **TRIALS[slot]) for slot in slots]  # type: ignore[arg-type]


def alone(slot: int, numbers: list[int]) -> tuple[dict[str, Tensor], dict[str, Tensor], list[float]]:
    """The same trial through torch: weights, first moments, norms."""
    trial = TRIALS[slot]
    weights = {name: torch.nn.Parameter(value) for name, value in draw(slot, slot).items()}
    groups = [
        {"params": [weights["layer.A"], weights["layer.B"]], "lr": trial["adapter_rate"]},
        {"params": [weights["head.weight"]], "lr": trial["head_rate"]},
        {"params": [weights["head.bias"]], "lr": trial["head_rate"], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups,
        betas=trial["betas"],
        eps=trial["eps"],
        weight_decay=trial["weight_decay"],  # type: ignore[arg-type]
    )
    norms = []
    for number in numbers:
        for name, value in draw(slot, 100 * number + slot).items():
            weights[name].grad = value
        limit = trial["max_norm"]
        norms.append(float(torch.nn.utils.clip_grad_norm_(weights.values(), limit or float("inf"))))  # type: ignore[arg-type]
        optimizer.step()
    moments = {name: optimizer.state[weight]["exp_avg"] for name, weight in weights.items()}
    return {name: weight.detach() for name, weight in weights.items()}, moments, norms


def test_every_trial_moves_as_it_would_alone() -> None:
    store = new_store()
    for slot in range(3):
        store.write(slot, draw(slot, slot))
    norms = []
    for number in range(1, 21):
        for slot in range(3):
            store.write(slot, draw(slot, 100 * number + slot), "gradients")
        norms.append(optimizer_step(store, steps_at(number, [0, 1, 2])).tolist())
    for slot in range(3):
        weights, moments, wanted = alone(slot, list(range(1, 21)))
        mine, mean = store.read(slot, RANKS[slot]), store.read(slot, RANKS[slot], "exp_avg")
        for name in weights:
            assert torch.allclose(mine[name], weights[name], rtol=0, atol=1e-12)
            assert torch.allclose(mean[name], moments[name], rtol=0, atol=1e-12)
        assert [row[slot] for row in norms] == pytest.approx(wanted, abs=1e-12)
        assert store.padding_is_zero(slot, RANKS[slot])
    assert not store.buffers["gradients"].any()


def test_trials_that_do_not_step_are_not_touched() -> None:
    store = new_store()
    for slot in range(3):
        store.write(slot, draw(slot, slot))
        store.write(slot, draw(slot, 7), "gradients")
    before = {name: buffer.clone() for name, buffer in store.buffers.items()}
    optimizer_step(store, steps_at(1, [0, 2]))
    for name, buffer in store.buffers.items():
        assert torch.equal(buffer[1], before[name][1])
        assert not torch.equal(buffer[[0, 2]], before[name][[0, 2]])


def test_a_trial_that_is_not_a_number_leaves_the_others_bitwise_alone() -> None:
    stores = [new_store(torch.float32), new_store(torch.float32)]
    for broken, store in enumerate(stores):
        for number in (1, 2):
            for slot in range(3):
                store.write(slot, draw(slot, number), "gradients")
            if broken:
                store.buffers["gradients"][1] = float("nan")
            optimizer_step(store, steps_at(number, [0, 1, 2]))
    assert stores[1].buffers["weights"][1].isnan().any()
    for slot in (0, 2):
        assert torch.equal(stores[0].buffers["weights"][slot], stores[1].buffers["weights"][slot])


def test_resizing_keeps_trials_and_pads_with_zeros() -> None:
    store = new_store()
    for slot in range(3):
        store.write(slot, draw(slot, slot))
        store.write(slot, draw(slot, slot + 5), "exp_avg_sq")
    new = store.resized([2, None, 0, 1], max_rank=9)
    for to, of in ((0, 2), (2, 0), (3, 1)):
        for buffer in SlotStore.BUFFERS:
            old, kept = store.read(of, RANKS[of], buffer), new.read(to, RANKS[of], buffer)
            assert all(torch.equal(old[name], kept[name]) for name in old)
        assert new.padding_is_zero(to, RANKS[of])
    assert not any(buffer[1].any() for buffer in new.buffers.values())
