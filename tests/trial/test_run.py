"""One trial end to end on stand-ins: the run folder it leaves, failures, refusals, resume, tasks and their data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from emotion_sweeps.config.compose import compose
from emotion_sweeps.data.prompts import PromptStyle
from emotion_sweeps.errors import UserError
from emotion_sweeps.handle import NullHandle, use_handle
from emotion_sweeps.trial.components import corpus_of
from emotion_sweeps.trial.place import TrialPlace
from emotion_sweeps.trial.run import run_trial

SMOKE = [
    "training=smoke",
    "data.max_samples=48",
    "data.max_eval_samples=24",
    "tracking=jsonl",
    "hardware.precision=fp32",
]
TINY = ["model=roberta_tiny", *SMOKE]


def result_of(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def records_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run_trial(compose(TINY), TrialPlace(folder))
    return folder


def test_the_run_folder_holds_what_is_promised(finished: Path) -> None:
    assert {"adapter", "metrics.jsonl", "predictions", "result.json"} <= {p.name for p in finished.iterdir()}
    assert not (finished / "checkpoints").exists()
    adapter = {p.name for p in (finished / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "emotion_sweeps.json", "tokenizer.json"} <= adapter
    assert not [p for p in finished.rglob("*") if p.suffix in {".bin", ".pt", ".pkl", ".pth"}]


def test_result_json_says_how_it_went(finished: Path) -> None:
    result = result_of(finished)
    assert result["schema"] == 1 and result["status"] == "complete" and result["error"] is None
    assert result["name"] == "r16_a32_d05_linear"
    assert result["stand_in"] is True
    assert result["objective"]["direction"] == "minimize"
    assert result["best"]["loss"]["value"] <= result["final"]["metrics"]["loss"]
    assert 0 < result["trainable_parameters"] < result["total_parameters"]
    assert result["num_steps"] == 4
    assert {m["phase"] for m in result["memory"]} >= {"load", "train", "evaluate", "save"}
    assert result["data"]["num_train"] == 48
    assert result["versions"]["torch"]
    assert len(result["per_label"]) == len(result["data"]["label_names"]) == 11


def test_a_single_run_scores_its_test_part_and_a_trial_of_a_sweep_does_not(finished: Path, tmp_path: Path) -> None:
    assert result_of(finished)["test"]["macro_f1"] >= 0
    run_trial(compose(TINY), TrialPlace(tmp_path / "3", number=3, sweep_dir=tmp_path))
    result = result_of(tmp_path / "3")
    assert result["test"] is None and result["name"] == "exp3_r16_a32_d05_linear"
    assert len((tmp_path / "3" / "predictions" / "test.jsonl").read_text().splitlines()) == 24


def test_predictions_name_labels_and_probabilities(finished: Path) -> None:
    rows = [json.loads(line) for line in (finished / "predictions" / "validation.jsonl").read_text().splitlines()]
    assert len(rows) == 24
    assert set(rows[0]) == {"id", "text", "gold", "predicted", "probabilities"}
    assert all(0 <= p <= 1 for row in rows for p in row["probabilities"].values())


def test_metrics_jsonl_has_training_evaluations_and_memory(finished: Path) -> None:
    records = records_of(finished)
    assert [r["step"] for r in records if r["kind"] == "train"] == [1, 2, 3, 4]
    assert {r["kind"] for r in records} == {"train", "eval", "memory"}


def test_equal_seeds_give_equal_results_and_different_seeds_do_not(finished: Path, tmp_path: Path) -> None:
    run_trial(compose(TINY), TrialPlace(tmp_path / "same"))
    run_trial(compose([*TINY, "seed=1"]), TrialPlace(tmp_path / "other"))
    losses = {name: result_of(f)["final"]["metrics"]["loss"] for name, f in
              {"first": finished, "same": tmp_path / "same", "other": tmp_path / "other"}.items()}  # fmt: skip
    assert losses["first"] == losses["same"] != losses["other"]


def test_micro_batches_do_not_change_what_is_learned(finished: Path, tmp_path: Path) -> None:
    run_trial(compose([*TINY, "hardware.micro_batch_size=3", "lora.dropout=0"]), TrialPlace(tmp_path / "cut"))
    run_trial(compose([*TINY, "lora.dropout=0"]), TrialPlace(tmp_path / "whole"))
    # The base's own dropout draws differently for other shapes; what remains must stay close.
    cut, whole = (result_of(tmp_path / n)["final"]["metrics"]["loss"] for n in ("cut", "whole"))
    assert cut == pytest.approx(whole, rel=0.05)


def test_a_finished_trial_is_not_trained_again_and_never_written_over(finished: Path) -> None:
    before = (finished / "result.json").read_bytes()
    assert run_trial(compose(TINY), TrialPlace(finished)) == result_of(finished)["objective"]["value"]
    with pytest.raises(UserError, match="holds another finished trial"):
        run_trial(compose([*TINY, "lora.r=8"]), TrialPlace(finished))
    assert (finished / "result.json").read_bytes() == before


def test_a_checkpoint_of_other_settings_is_not_taken_for_ones_own(tmp_path: Path) -> None:
    class Pausing(NullHandle):
        pausing = True

        def should_stop(self) -> bool:
            return True

    longer = [*TINY, "training.max_steps=12", "training.epochs=2"]
    with use_handle(Pausing()):
        run_trial(compose(longer), TrialPlace(tmp_path))
    for other in ("lora.r=8", "lora.learning_rate=1e-5", "seed=3", "data.max_samples=40"):
        with pytest.raises(UserError, match="checkpoint of other settings or data"):
            run_trial(compose([*longer, other]), TrialPlace(tmp_path))
    run_trial(compose([*longer, "lora.r=8", "training.resume=false"]), TrialPlace(tmp_path))
    assert result_of(tmp_path)["lora"]["r"] == 8


def test_a_failure_leaves_its_class_and_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lora.target_modules"):
        run_trial(compose([*TINY, "lora.target_modules=[no_such_module]"]), TrialPlace(tmp_path))
    result = result_of(tmp_path)
    assert result["status"] == "failed"
    assert result["error"]["class"] == "UserError" and "no_such_module" in result["error"]["message"]


def test_single_labels_are_refused_on_data_with_several(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="task=singlelabel_head needs exactly one label a text, and .* data=demo"):
        run_trial(compose([*TINY, "task=singlelabel_head"]), TrialPlace(tmp_path))


def test_a_single_label_file_trains_with_cross_entropy(tmp_path: Path) -> None:
    words = {"joy": "what a lovely bright day", "anger": "this is an outrage again", "fear": "i hear steps outside"}
    rows = [f"{words[label]} {i}|{label}" for i in range(20) for label in words]
    (tmp_path / "posts.txt").write_text("\n".join(rows) + "\n")
    conf = compose([*TINY, "task=singlelabel_head", "data=files", f"data.train={tmp_path / 'posts.txt'}"])
    run_trial(conf, TrialPlace(tmp_path / "run"))
    result = result_of(tmp_path / "run")
    assert result["data"]["label_names"] == ["anger", "fear", "joy"] or set(result["data"]["label_names"]) == set(words)
    assert result["thresholds"] is None and result["data"]["multilabel"] is False


def test_generation_writes_answers(tmp_path: Path) -> None:
    overrides = ["model=qwen3_tiny", "task=label_generation", *SMOKE, "data.max_samples=16", "data.max_eval_samples=8"]
    run_trial(compose([*overrides, "data.max_length=256"]), TrialPlace(tmp_path))
    metrics = result_of(tmp_path)["kept"]["metrics"]
    assert {"token_accuracy", "invalid_answers", "macro_f1", "loss"} <= set(metrics)
    rows = [json.loads(line) for line in (tmp_path / "predictions" / "validation.jsonl").read_text().splitlines()]
    assert all({"answer", "valid"} <= set(row) for row in rows)


GENERATION = ["model=qwen3_tiny", "task=label_generation", *SMOKE, "data.max_samples=16", "data.max_eval_samples=8"]


def test_constrained_answers_are_valid_and_have_probabilities(tmp_path: Path) -> None:
    chosen = ["task.decoding=constrained", "task.probabilities=exact", "task.few_shot=3", "task.sequence_packing=true"]
    run_trial(compose([*GENERATION, *chosen, "data.max_length=512"]), TrialPlace(tmp_path))
    result = result_of(tmp_path)
    assert result["kept"]["metrics"]["invalid_answers"] == 0
    told = result["label_probabilities"]
    assert told["method"] == "exact" and told["validation"]["error_bound"] <= 1e-3
    assert {"loss", "macro_f1", "macro_f1_at_half"} <= set(told["validation"]) & set(told["test"])
    assert len(told["thresholds"]) == 11
    for name in ("validation", "test"):
        rows = [json.loads(line) for line in (tmp_path / "predictions" / f"{name}.jsonl").read_text().splitlines()]
        assert all(row["valid"] and len(row["probabilities"]) == 11 for row in rows)
    card = json.loads((tmp_path / "adapter" / "emotion_sweeps.json").read_text())
    assert card["thresholds"] == told["thresholds"]
    style = PromptStyle(**card["prompt"])
    assert style.constrained and style.multilabel and len(style.examples) == 3
    train = corpus_of(compose(GENERATION).data).train
    assert {text for text, _ in style.examples} <= set(train.texts)
    notices = [record["text"] for record in records_of(tmp_path) if record["kind"] == "notice"]
    assert [text.split(":")[0] for text in notices] == [
        "label probabilities of validation",
        "label probabilities of test",
    ]


def test_the_test_scores_of_probabilities_stay_closed_in_a_sweep(tmp_path: Path) -> None:
    chosen = ["task.probabilities=sampled", "task.probability_samples=4", "data.max_length=256"]
    run_trial(compose([*GENERATION, *chosen]), TrialPlace(tmp_path / "3", number=3, sweep_dir=tmp_path))
    told = result_of(tmp_path / "3")["label_probabilities"]
    assert told["method"] == "sampled" and told["test"] is None and told["validation"]["standard_error_max"] >= 0


def test_free_decoding_keeps_its_invalid_answers(tmp_path: Path) -> None:
    conf = compose([*GENERATION, "task.decoding=free", "task.probabilities=none", "data.max_length=256"])
    run_trial(conf, TrialPlace(tmp_path))
    result = result_of(tmp_path)
    assert result["kept"]["metrics"]["invalid_answers"] > 0 and result["label_probabilities"] is None


def test_focal_loss_trains_and_is_searchable(finished: Path, tmp_path: Path) -> None:
    run_trial(compose([*TINY, "task.focal_gamma=2"]), TrialPlace(tmp_path))
    plain, focal = (next(r["loss"] for r in records_of(f) if r["kind"] == "train") for f in (finished, tmp_path))
    assert 0 < focal < plain


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["joy", "Joy"], "the labels '[jJ]oy' and '[jJ]oy' read alike"),
        (["joy", "anger, mild"], "task.label_separator=', ' stands inside the label"),
        (["joy", "none so far", "none"], "task.none_word='none' is also the label 'none'"),
    ],
)
def test_labels_that_cannot_be_answers_are_refused_before_training(
    tmp_path: Path, labels: list[str], message: str
) -> None:
    lines = [json.dumps({"text": f"post number {i}", "labels": labels[: 1 + i % len(labels)]}) for i in range(30)]
    (tmp_path / "posts.jsonl").write_text("\n".join(lines) + "\n")
    conf = compose([*GENERATION, "data=files", f"data.train={tmp_path / 'posts.jsonl'}", "data.max_length=256"])
    with pytest.raises(UserError, match=message):
        run_trial(conf, TrialPlace(tmp_path / "run"))
    assert [r for r in records_of(tmp_path / "run") if r["kind"] == "train"] == []


def test_the_study_hears_every_evaluation_and_can_stop_the_trial(tmp_path: Path) -> None:
    class Stopping(NullHandle):
        number, study_name = 7, "study"

        def __init__(self) -> None:
            self.heard: list[tuple[int, float]] = []

        def report(self, step: int, epoch: float, metrics: Any) -> None:
            self.heard.append((step, metrics["loss"]))

        def should_stop(self) -> bool:
            return len(self.heard) == 2

    handle = Stopping()
    conf = compose([*TINY, "training.max_steps=24", "training.evals_per_epoch=2"])
    with use_handle(handle):
        run_trial(conf, TrialPlace(tmp_path, number=7, sweep_dir=tmp_path))
    result = result_of(tmp_path)
    assert result["status"] == "pruned" and result["name"].startswith("exp7_")
    assert [step for step, _ in handle.heard] == [3, 6]
    assert result["objective"]["value"] == min(loss for _, loss in handle.heard)
    assert not (tmp_path / "adapter").exists() and not (tmp_path / "checkpoints").exists()


def test_a_paused_trial_goes_on_from_its_checkpoint_as_if_nothing_had_been(tmp_path: Path) -> None:
    class Pausing(NullHandle):
        number, pausing = 1, True

        def should_stop(self) -> bool:
            return True

    conf = compose([*TINY, "training.max_steps=12", "training.epochs=2"])
    with use_handle(Pausing()):
        run_trial(conf, TrialPlace(tmp_path / "paused", number=1, sweep_dir=tmp_path))
    assert result_of(tmp_path / "paused")["status"] == "pruned" and (tmp_path / "paused" / "checkpoints").is_dir()
    run_trial(conf, TrialPlace(tmp_path / "paused", number=1, sweep_dir=tmp_path))
    run_trial(conf, TrialPlace(tmp_path / "whole", number=1, sweep_dir=tmp_path))
    resumed, whole = (result_of(tmp_path / name) for name in ("paused", "whole"))
    assert resumed["status"] == "complete" and resumed["kept"] == whole["kept"] and resumed["best"] == whole["best"]
