"""What makes two trials the same."""

from __future__ import annotations

import os

from omegaconf import OmegaConf

from emotion_sweeps.sweeps.identity import identity


def of(**changes):
    base = {
        "lora": {"r": 8, "alpha": None, "search_space": {"lora.r": "1,2"}},
        "training": {"epochs": 4, "log_every": 10, "resume": True, "predict_test": True},
        "hardware": {"device": "cpu", "micro_batch_size": 16, "precision": "fp32", "load_in_4bit": False},
        "sweep": {"workers": 1}, "tracking": {"wandb": True}, "name": None, "seed": 0,
        "data": {"source": "hub", "path": "x"},
    }  # fmt: skip
    cfg = OmegaConf.create(base)
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value)
    return identity(cfg)


def test_how_a_trial_is_run_and_watched_does_not_count():
    same = {
        "sweep__workers": 4, "tracking__wandb": False, "name": "x", "hardware__device": "cuda",
        "hardware__micro_batch_size": 2, "training__log_every": 1, "training__resume": False,
        "training__predict_test": False, "lora__search_space": {}, "training__epochs": 4.0, "hydra": {"x": 1},
    }  # fmt: skip
    for key, value in same.items():
        assert of(**{key: value}) == of(), key


def test_what_changes_the_outcome_counts():
    other = {
        "lora__r": 16, "training__epochs": 5, "seed": 1, "hardware__precision": "bf16",
        "hardware__load_in_4bit": True, "data__path": "y",
    }  # fmt: skip
    assert len({of(**{key: value}) for key, value in other.items()} | {of()}) == len(other) + 1


def test_files_count_by_their_bytes_not_by_their_place(tmp_path):
    first, second = tmp_path / "a.tsv", tmp_path / "b.tsv"
    first.write_text("x")
    second.write_text("x")
    with_file = lambda path: of(data={"source": "files", "train": str(path), "labels": None})  # noqa: E731
    before = with_file(first)
    assert before == with_file(second)
    second.write_text("y")
    os.utime(second, ns=(1, 1))
    assert with_file(second) != before


def test_demo_data_have_a_digest():
    assert of(data={"source": "demo"}) == of(data={"source": "demo"}) != of(data={"source": "hub"})


def test_interpolations_are_resolved():
    assert of(lora__alpha="${seed}") == of(lora__alpha=0) != of()
