"""The plan: counts as PEFT and autograd see them on real models, times from a probe's records, what is printed."""

from __future__ import annotations

import types
from typing import Any

import hydra
import pytest
import torch
from omegaconf import DictConfig
from rich.console import Console

from emotion_sweeps.config.compose import compose
from emotion_sweeps.config.register import register
from emotion_sweeps.config.schema import TrainConf
from emotion_sweeps.paths import conf_dir
from emotion_sweeps.sweeps import plan, probe
from emotion_sweeps.sweeps.estimate import count_parameters, estimate_memory, skeleton
from emotion_sweeps.sweeps.identity import identity
from emotion_sweeps.trial import components

GENERATION = "task=label_generation"
MODELS = [
    ("roberta_tiny", "fp32"),
    ("roberta_tiny", "bf16"),
    ("qwen3_tiny", "fp32"),
    ("qwen3_tiny", "bf16"),
    ("gemma3_tiny", "bf16"),
]
LABELS = [f"label{i}" for i in range(11)]


def conf_of(*overrides: str) -> TrainConf:
    return compose(["tracking=jsonl", "hardware=cpu", *overrides])


def skeleton_of(conf: TrainConf) -> Any:
    base = components.find_base(conf)
    return skeleton(conf, base.source, kind=base.kind, pooling=base.pooling, num_labels=len(LABELS))


def real_model(conf: TrainConf) -> Any:
    base = components.find_base(conf)
    hardware = components.pick_hardware(conf.hardware, base.source.reference)
    return components.build_model(conf, base, hardware, types.SimpleNamespace(label_names=LABELS))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=roberta_tiny"],
        ["model=roberta_tiny", "lora=attention", "lora.r=4", "lora.bias=all", "hardware.precision=fp32"],
        ["model=roberta_tiny", "model.pooling=mean"],
        ["model=qwen3_tiny", "lora.use_dora=true"],
        ["model=gemma3_tiny", "lora=attention_mlp"],
        ["model=gemma3_tiny", GENERATION],
    ],
    ids=" ".join,
)
def test_parameters_are_those_of_the_real_model(overrides: list[str]) -> None:
    conf = conf_of(*overrides)
    model = skeleton_of(conf)
    count = count_parameters(model)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert (count.trainable, count.total) == real_model(conf).get_nb_trainable_parameters()


def saved_bytes(model: Any, batch: int, length: int, *, autocast: bool) -> int:
    """What autograd keeps of a forward pass, parameters aside."""
    parameters = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, Any] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            kept[storage._cdata] = storage  # held, so that no address is used twice
        return tensor

    ids = torch.randint(5, 400, (batch, length))
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        model.train()(input_ids=ids, attention_mask=torch.ones_like(ids))
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize(("model", "precision"), MODELS)
@pytest.mark.parametrize("length", [16, 64])
def test_activations_are_near_what_autograd_keeps(model: str, precision: str, length: int) -> None:
    conf = conf_of(f"model={model}", f"hardware.precision={precision}")
    estimate = estimate_memory(
        skeleton_of(conf),
        precision=precision,
        load_in_4bit=False,
        micro_batch_size=8,
        max_length=length,
        dropout=conf.lora.dropout,
        gradient_checkpointing=False,
        device="cpu",
    )
    measured = saved_bytes(real_model(conf), 8, length, autocast=precision == "bf16")
    assert 0.7 < estimate.activations * 2**30 / measured < 1.4


def memory_of(*overrides: str, **changed: Any) -> Any:
    conf = conf_of(*overrides)
    given = {
        "precision": "bf16",
        "load_in_4bit": False,
        "micro_batch_size": 8,
        "max_length": 64,
        "dropout": 0.05,
        "gradient_checkpointing": False,
        "device": "cuda",
    }
    return estimate_memory(skeleton_of(conf), **{**given, **changed})


def test_memory_follows_precision_4_bit_and_checkpointing() -> None:
    usual = memory_of("model=qwen3_tiny")
    count = count_parameters(skeleton_of(conf_of("model=qwen3_tiny")))
    frozen = count.total - count.trainable
    assert usual.base * 2**30 == pytest.approx(2 * frozen)
    assert usual.trained * 2**30 == pytest.approx(16 * count.trainable)
    assert memory_of("model=qwen3_tiny", precision="fp32").base == pytest.approx(2 * usual.base)
    four_bit = memory_of("model=qwen3_tiny", load_in_4bit=True)
    assert four_bit.base * 2**30 == pytest.approx(2 * (frozen - count.quantizable) + 0.516 * count.quantizable)
    assert memory_of("model=qwen3_tiny", gradient_checkpointing=True).activations < usual.activations
    assert memory_of("model=qwen3_tiny", micro_batch_size=16).activations == pytest.approx(2 * usual.activations)


def test_4_bit_bytes_are_those_of_bitsandbytes() -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    weight = torch.randn(512, 512)
    packed, state = bitsandbytes.functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    stored = [packed, state.absmax, state.state2.absmax]
    assert sum(t.numel() * t.element_size() for t in stored) / weight.numel() == pytest.approx(0.516, abs=0.001)


def test_a_probe_is_read_from_records() -> None:
    records = [
        {"kind": "train", "step": step, "time_s": time_s} for step, time_s in [(1, 5.0), (2, 6.0), (3, 6.5), (4, 7.0)]
    ]
    records += [{"kind": "memory"}, {"kind": "eval", "split": "validation", "step": 4, "time_s": 9.0}]
    found = probe.read_probe(records, wall_s=12.0, eval_texts=100)
    assert found == probe.Probe(load_s=3.0, step_s=0.5, eval_text_s=0.02)
    assert probe.trial_seconds(probe.Length(10, 2, 50), found) == pytest.approx(3 + 10 * 0.5 + 2 * 50 * 0.02)


def test_a_trial_is_as_long_as_its_batches_and_epochs_make_it() -> None:
    conf = conf_of("data.max_samples=40", "data.max_eval_samples=30", "training.epochs=2", "training.evals_per_epoch=2")
    assert probe.trial_length(conf) == probe.Length(steps=6, evaluations=4, eval_texts=30)


@pytest.mark.parametrize(
    ("pruner", "share"),
    [
        ("none", 1.0),
        ("asha", None),
        ("median", None),
        ("halving", (8 + 4 * 1 + 2 * 2) / 32),
        ("hyperband", 1.0),
    ],
)
def test_the_share_that_a_pruner_trains(pruner: str, share: float | None) -> None:
    conf = conf_of(f"sweep.pruner={pruner}", "sweep.reduction_factor=2")
    found = plan.pruned_share(conf, 8, 4)
    assert found is None if share is None else found is not None
    if share is not None and found is not None:
        assert found == pytest.approx(share) if pruner != "hyperband" else share / 2 < found < share


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "1 s"), (89, "89 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations_for_people(seconds: float, text: str) -> None:
    assert plan.duration(seconds) == text


def printed(cells: list[list[str]] | None, **arguments: Any) -> str:
    register()
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    shared = ["tracking=jsonl", "hardware=cpu", "data.max_samples=40", "data.max_eval_samples=30"]

    def composed(overrides: list[str]) -> DictConfig:
        return hydra.compose("train", [*shared, *overrides])

    given = {
        "study_name": "s",
        "n_trials": None,
        "done": (),
        "fixed": [],
        "probe": False,
        "compose": composed,
    }
    with hydra.initialize_config_dir(str(conf_dir())):
        plan.print_plan(cells=cells, console=console, **{**given, **arguments})
        return console.export_text()


def test_the_plan_says_what_would_run() -> None:
    cells = [["model=qwen3_tiny", f"lora.r={r}"] for r in (4, 8, 4)]
    text = printed(cells)
    assert "Study s: 3 cells, 2 distinct, 0 already done, 2 to run" in text
    assert "the same as exp0_qwen3_tiny_r4_a8_d05_linear" in text
    low, high = (count_parameters(skeleton_of(conf_of("model=qwen3_tiny", f"lora.r={r}"))) for r in (4, 8))
    assert f"{low.trainable:,} to {high.trainable:,}" in text
    assert "Time of the sweep: unknown" in text


def test_the_plan_knows_what_is_done() -> None:
    register()
    with hydra.initialize_config_dir(str(conf_dir())):
        shared = ["tracking=jsonl", "hardware=cpu", "data.max_samples=40", "data.max_eval_samples=30"]
        first = identity(hydra.compose("train", [*shared, "model=qwen3_tiny", "lora.r=4"]))
    text = printed([["model=qwen3_tiny", f"lora.r={r}"] for r in (4, 8)], done={first})
    assert "2 distinct, 1 already done, 1 to run" in text
    assert text.count("already done") == 2
    assert "exp1_qwen3_tiny_r8_a16_d05_linear │ to run" in text


def test_a_sampled_space_is_planned_by_its_fixed_part() -> None:
    text = printed(None, fixed=["model=qwen3_tiny"], n_trials=20, done=3)
    assert "Study s: 20 trials, sampled from a space, 3 already done, 17 to run" in text


def test_a_base_that_cannot_be_had_is_unknown_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed([["model=custom", "model.path=nobody/such-model", "model.name=mine"]])
    assert "unknown" in text
    assert "nobody/such-model" in text


def test_a_base_without_weights_here_is_not_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "weights_are_here", lambda source: False)
    text = printed([["model=qwen3_tiny"]], probe=True)
    assert "no time estimate: its weights are not on this machine" in " ".join(text.split())


@pytest.mark.slow
def test_the_probe_times_a_real_trial() -> None:
    text = printed([["model=qwen3_tiny"]], probe=True)
    assert "Time of the sweep: " in text
    assert "of training" in text
    assert "time of a trial" in text
    assert "unknown" not in text
