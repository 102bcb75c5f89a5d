from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from emotion_sweeps.errors import UserError
from emotion_sweeps.training import checkpoints
from emotion_sweeps.training.optimizer import OPTIMIZERS, check_optimizer, is_head, parameter_groups

Make = Callable[..., Any]


def test_only_the_newest_whole_checkpoint_counts_and_remains(make_head: Make, tmp_path: Path) -> None:
    model = make_head()
    for step in (9, 10):
        partial = checkpoints.partial_folder(tmp_path, step)
        checkpoints.write_progress(partial, model, checkpoints.trainable_weights(model), {"step": step})
        checkpoints.publish(partial)
    checkpoints.partial_folder(tmp_path, 11)  # killed while writing
    last = checkpoints.last_checkpoint(tmp_path)
    assert last == tmp_path / "checkpoint-10"
    assert checkpoints.read_progress(last)[1] == {"step": 10}
    assert len(list(tmp_path.iterdir())) <= 2
    assert checkpoints.last_checkpoint(tmp_path / "nowhere") is None


def test_weights_come_back_and_snapshots_are_copies(make_head: Make, tmp_path: Path) -> None:
    model = make_head()
    before = checkpoints.trainable_weights(model)
    assert before and all("lora_" in name or "classifier" in name for name in before)
    partial = checkpoints.partial_folder(tmp_path, 1)
    checkpoints.write_progress(partial, model, before, {})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    changed = checkpoints.trainable_weights(model)
    assert all(not torch.equal(changed[name], before[name]) for name in before)
    checkpoints.load_weights(model, checkpoints.read_weights(partial))
    torch.testing.assert_close(checkpoints.trainable_weights(model), before)


def test_groups_give_the_head_its_rate_and_matrices_their_decay(make_head: Make) -> None:
    model = make_head()
    groups = parameter_groups(
        model, learning_rate=1e-3, head_learning_rate=1e-2, weight_decay=0.1, head_modules=["classifier"]
    )
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert sum(len(group["params"]) for group in groups) == len(trainable)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = next(g for g in groups if any(p is parameter for p in g["params"]))
            assert group["lr"] == (1e-2 if "classifier" in name else 1e-3)
            assert group["weight_decay"] == (0.1 if parameter.ndim == 2 else 0.0)
    assert all(group["params"] for group in groups)


def test_a_head_is_found_by_whole_names() -> None:
    assert is_head("base_model.model.classifier.modules_to_save.default.weight", ["classifier"])
    assert not is_head("base_model.model.pre_classifier.weight", ["classifier"])


def test_optimizer_names_are_transformers() -> None:
    assert check_optimizer("adamw_torch") == "adamw_torch" and "sgd" in OPTIMIZERS
    with pytest.raises(UserError, match="no optimizer 'adamw_toch'.*did you mean \"adamw_torch\""):
        check_optimizer("adamw_toch")
