"""A pack of trials on stand-ins: each leaves the folder that it leaves alone, its adapter scores the same in PEFT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emotion_sweeps.config.compose import compose
from emotion_sweeps.data.tokens import encode_texts, pad_batch
from emotion_sweeps.errors import UserError
from emotion_sweeps.lora.reload import load_adapter_folder
from emotion_sweeps.trial.pack import CannotPack, PackJob, TrialPack
from emotion_sweeps.trial.pack_base import pack_base, release
from emotion_sweeps.trial.place import TrialPlace
from emotion_sweeps.trial.run import run_trial

SMOKE = [
    "training=smoke",
    "data.max_samples=48",
    "data.max_eval_samples=24",
    "tracking=jsonl",
    "hardware.precision=fp32",
]
CELLS = {
    "small": ["lora.r=4", "lora.dropout=0", "task.weighting=sqrt"],
    "large": [
        "lora.r=12",
        "lora.dropout=0",
        "lora.use_rslora=true",
        "scheduler=cosine",
        "seed=4",
        "lora.weight_decay=0.1",
    ],
    "short": [
        "lora.r=8",
        "lora.dropout=0",
        "training.max_steps=3",
        "lora.learning_rate=3e-3",
        "training.max_grad_norm=0.1",
    ],
}


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def run_cells(folder: Path, fixed: list[str], *, num_slots: int | None = 2, sweep: bool = True) -> dict[str, Any]:
    jobs = [
        PackJob(
            compose([*fixed, *cell]),
            TrialPlace(folder / name, number, folder if sweep else None, tuple(cell)),
            token=name,
        )
        for number, (name, cell) in enumerate(CELLS.items())
    ]
    ends: dict[str, Any] = {}
    pack = TrialPack(jobs[0].conf, num_slots=num_slots, expected=len(jobs))
    counts = pack.run(lambda: jobs.pop(0) if jobs else None, lambda job, end: ends.__setitem__(job.token, end))
    return {"ends": ends, "counts": counts}


@pytest.fixture(scope="module", autouse=True)
def no_dropout_in_the_base() -> Any:
    """Alone and in a pack the base's dropout has other streams; without it both must give the same numbers."""
    from emotion_sweeps.models import twins

    release()  # a base that another test's pack left in this process still has its dropout
    recipe = twins.TWINS["roberta_tiny"]
    before = dict(recipe.config)
    recipe.config.update({"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    yield
    release()
    recipe.config.clear()
    recipe.config.update(before)


@pytest.mark.parametrize("model", ["roberta_tiny", "gemma3_tiny", "qwen3_tiny"])
def test_a_trial_leaves_the_folder_that_it_leaves_alone(tmp_path: Path, model: str) -> None:
    fixed = [f"model={model}", *SMOKE]
    run = run_cells(tmp_path / "pack", fixed)
    assert run["counts"].trials == 3 and run["counts"].most_slots == 2
    for number, (name, cell) in enumerate(CELLS.items()):
        folder, reference = tmp_path / "pack" / name, tmp_path / "alone" / name
        value = run_trial(compose([*fixed, *cell]), TrialPlace(reference, number, tmp_path / "alone", tuple(cell)))
        assert run["ends"][name] == pytest.approx(value, rel=1e-4)
        mine, wanted = read(folder), read(reference)
        assert mine["engine"] == "packed" and mine["packed_with"] == 2
        assert {p.name for p in folder.iterdir()} == {p.name for p in reference.iterdir()}
        assert {p.name for p in (folder / "adapter").iterdir()} == {p.name for p in (reference / "adapter").iterdir()}
        assert not set(wanted) - set(mine)
        for key in (
            "name",
            "status",
            "trainable_parameters",
            "total_parameters",
            "num_steps",
            "lora",
            "config",
            "data",
        ):
            assert mine[key] == wanted[key], key
        for metric, best in wanted["best"].items():
            assert mine["best"][metric]["value"] == pytest.approx(best["value"], rel=2e-3, abs=1e-4), metric
        assert kinds(folder) == kinds(reference)
        assert_same_adapter(folder / "adapter", reference / "adapter")


def kinds(folder: Path) -> list[tuple[str, Any]]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        (record["kind"], record.get("step") or record.get("phase")) for record in records if record["kind"] != "notice"
    ]


def assert_same_adapter(mine: Path, wanted: Path) -> None:
    from safetensors.torch import load_file

    configs = [json.loads((folder / "adapter_config.json").read_text()) for folder in (mine, wanted)]
    assert configs[0] == configs[1]
    tensors = [load_file(folder / "adapter_model.safetensors") for folder in (mine, wanted)]
    assert set(tensors[0]) == set(tensors[1])
    for name, value in tensors[0].items():
        assert value.dtype == tensors[1][name].dtype
        torch.testing.assert_close(value, tensors[1][name], rtol=2e-2, atol=2e-4)


def test_the_exported_adapter_scores_the_packs_own_probabilities(tmp_path: Path) -> None:
    run_cells(tmp_path, ["model=roberta_tiny", *SMOKE])
    for name in CELLS:
        loaded = load_adapter_folder(tmp_path / name / "adapter")
        rows = [json.loads(line) for line in (tmp_path / name / "predictions" / "test.jsonl").read_text().splitlines()]
        ids, mask = pad_batch(encode_texts(loaded.tokenizer, [row["text"] for row in rows], max_length=128), 1)
        with torch.no_grad():
            logits = loaded.model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits
        wanted = np.array([list(row["probabilities"].values()) for row in rows])
        np.testing.assert_allclose(torch.sigmoid(logits).numpy(), wanted, atol=1e-5)


def test_generation_in_a_pack_is_generation_alone(tmp_path: Path) -> None:
    small = ["data.max_samples=16", "data.max_eval_samples=8", "data.max_length=256"]
    fixed = ["model=qwen3_tiny", "task=label_generation", *SMOKE, *small]
    cells = {"a": ["lora.r=4", "lora.dropout=0"], "b": ["lora.r=6", "lora.dropout=0", "seed=3"]}
    jobs = [
        PackJob(compose([*fixed, *cell]), TrialPlace(tmp_path / "pack" / name), token=name)
        for name, cell in cells.items()
    ]
    ends: dict[str, Any] = {}
    pack = TrialPack(jobs[0].conf, num_slots=2)
    pack.run(lambda: jobs.pop(0) if jobs else None, lambda job, end: ends.__setitem__(job.token, end))
    for name, cell in cells.items():
        run_trial(compose([*fixed, *cell]), TrialPlace(tmp_path / "alone" / name))
        mine, wanted = read(tmp_path / "pack" / name), read(tmp_path / "alone" / name)
        assert mine["kept"]["metrics"] == pytest.approx(wanted["kept"]["metrics"], rel=1e-3, abs=1e-4)
        assert mine["test"] == pytest.approx(wanted["test"], rel=1e-3, abs=1e-4)
        assert_same_answers(tmp_path, name)


def assert_same_answers(folder: Path, name: str) -> None:
    files = [folder / kind / name / "predictions" / "test.jsonl" for kind in ("pack", "alone")]
    rows = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    for one, other in zip(*rows, strict=True):
        probabilities = one.pop("probabilities", None), other.pop("probabilities", None)
        assert one == other
        assert (probabilities[0] is None) == (probabilities[1] is None)
        if probabilities[0] is not None:
            assert probabilities[0] == pytest.approx(probabilities[1], abs=1e-3)


def test_one_trial_that_fails_leaves_the_others_alone(tmp_path: Path) -> None:
    fixed = ["model=roberta_tiny", *SMOKE, "lora.dropout=0", "training.max_grad_norm=1e30"]
    cells = {
        "good": [],
        "diverges": ["lora.learning_rate=1e30", "lora.head_learning_rate=1e30", "scheduler=constant"],
        "late": ["seed=2"],
    }
    jobs = [PackJob(compose([*fixed, *cell]), TrialPlace(tmp_path / name), token=name) for name, cell in cells.items()]
    ends: dict[str, Any] = {}
    TrialPack(jobs[0].conf, num_slots=2).run(
        lambda: jobs.pop(0) if jobs else None, lambda job, end: ends.__setitem__(job.token, end)
    )
    assert isinstance(ends["diverges"], UserError)
    failed = read(tmp_path / "diverges")
    assert failed["status"] == "failed" and failed["error"]["class"] == "DivergedError"
    assert all(
        isinstance(ends[name], float) and read(tmp_path / name)["status"] == "complete" for name in ("good", "late")
    )


def test_a_finished_trial_is_not_trained_again(tmp_path: Path) -> None:
    fixed = ["model=roberta_tiny", *SMOKE]
    first = run_cells(tmp_path, fixed)
    again = run_cells(tmp_path, fixed)
    assert again["counts"].ticks == 0 and again["ends"] == first["ends"]


def test_the_number_of_slots_is_probed_where_it_is_not_given(tmp_path: Path) -> None:
    run = run_cells(tmp_path, ["model=roberta_tiny", *SMOKE], num_slots=None)
    assert 1 <= run["counts"].most_slots <= 3 and run["counts"].trials == 3


def test_a_four_bit_base_is_packed(tmp_path: Path) -> None:
    fixed = ["model=roberta_tiny", *SMOKE, "hardware.load_in_4bit=true"]
    run = run_cells(tmp_path / "pack", fixed)
    assert run["counts"].most_slots == 2
    run_trial(compose([*fixed, *CELLS["small"]]), TrialPlace(tmp_path / "alone", 0, tmp_path))
    mine, wanted = read(tmp_path / "pack" / "small"), read(tmp_path / "alone")
    assert mine["best"]["loss"]["value"] == pytest.approx(wanted["best"]["loss"]["value"], rel=1e-3)


def test_what_has_no_packed_form_says_why() -> None:
    with pytest.raises(CannotPack, match="embeddings is a|word_embeddings is a Embedding"):
        pack_base(compose(["model=roberta_tiny", *SMOKE, "lora.target_modules=[word_embeddings]"]))


def test_constrained_generation_with_probabilities_in_a_pack_is_that_alone(tmp_path: Path) -> None:
    small = ["data.max_samples=16", "data.max_eval_samples=8", "data.max_length=256", "training.max_steps=2"]
    fixed = ["model=qwen3_tiny", "task=label_generation", *SMOKE, *small, "lora.dropout=0", "lora.r=4"]
    fixed += ["task.decoding=constrained", "task.probabilities=sampled", "task.probability_samples=4"]
    cells = {"a": ["seed=1"], "b": ["seed=3", "task.sequence_packing=false"]}
    jobs = [
        PackJob(compose([*fixed, *cell]), TrialPlace(tmp_path / "pack" / name), token=name)
        for name, cell in cells.items()
    ]
    TrialPack(jobs[0].conf, num_slots=2).run(lambda: jobs.pop(0) if jobs else None, lambda job, end: None)
    for name, cell in cells.items():
        run_trial(compose([*fixed, *cell]), TrialPlace(tmp_path / "alone" / name))
        mine, wanted = read(tmp_path / "pack" / name), read(tmp_path / "alone" / name)
        assert mine["status"] == "complete" and not set(wanted) - set(mine)
        assert mine["test"] == pytest.approx(wanted["test"], rel=1e-3, abs=1e-4)
        assert_same_answers(tmp_path, name)
