"""The config: every option composes, mistakes are told in one line, names follow the published form."""

from __future__ import annotations

from pathlib import Path

import pytest

from emotion_sweeps.config.compose import as_container, compose
from emotion_sweeps.config.naming import trial_name
from emotion_sweeps.config.translate import as_user_error, known_keys
from emotion_sweeps.errors import UserError

CONF = Path(__file__).resolve().parents[2] / "conf"
NEEDS = {
    ("model", "custom"): ["model.path=FacebookAI/xlm-roberta-base"],
    ("data", "files"): [f"data.train={Path(__file__)}"],
    ("data", "semeval2018"): [f"data.train={Path(__file__)}"],
    ("data", "hub"): ["data.path=dair-ai/emotion"],
    ("task", "label_generation"): ["model=qwen3_tiny"],
}
OPTIONS = [
    (path.parent.name, path.stem)
    for path in sorted(CONF.glob("*/*.yaml"))
    if path.parent.name not in ("search", "experiment", "enqueue", "local")
]


GENERATION = ["model=qwen3_tiny", "task=label_generation"]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes(group: str, option: str) -> None:
    conf = compose([f"{group}={option}", *NEEDS.get((group, option), [])])
    assert as_container(conf)


@pytest.mark.parametrize("option", [p.stem for p in sorted((CONF / "model").glob("*.yaml"))])
def test_model_options_are_named_as_their_file(option: str) -> None:
    if option != "custom":
        assert compose([f"model={option}"]).model.name == option


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["lora.r=0"], "lora.r must be >= 1, got 0"),
        (["lora.dropout=1"], "lora.dropout must be >= 0 and < 1, got 1.0"),
        (["lora.dropout=-.1"], "lora.dropout must be >= 0 and < 1, got -0.1"),
        (["lora.learning_rate=-1e-4"], "lora.learning_rate must be > 0, got -0.0001"),
        (["lora.learning_rate=nan"], "lora.learning_rate must be > 0, got nan"),
        (["lora.alpha=0"], "lora.alpha must be > 0, got 0.0"),
        (["lora.target_modules=[]"], "lora.target_modules must be a preset or a non-empty list"),
        (["scheduler.warmup_steps=2.5"], "scheduler.warmup_steps must be below 1"),
        (["scheduler.name=linaer"], 'did you mean "linear"?'),
        (["scheduler.warmup_steps=50", "training.max_steps=10"], "must be <= training.max_steps=10, got 50"),
        (["task=label_generation"], "task=label_generation needs a decoder"),
        (["model=qwen3_tiny", "model.pooling=first"], "model.pooling=first needs an encoder"),
        (["model.pooling=last"], "model.pooling=last needs a decoder"),
        (["data=files"], "data.train must be given"),
        (["data=files", "data.train=no/such.tsv"], "data.train: file not found: no/such.tsv"),
        (["data.validation_fraction=.6", "data.test_fraction=.4"], "must be < 1"),
        (["data.train=mine.tsv"], "data.train is not read by data=demo; take data=files"),
        (["data.test_fraction=.3"], "data.test_fraction is not read by data=demo"),
        (["data=files", f"data.train={CONF}"], "is a folder; give a file in it"),
        (["data=files", f"data.train={CONF / 'train.yml'}"], "did you mean"),
        (["objective.metric=[]"], "objective.metric must name at least one metric"),
        (["objective.metric=f1"], "objective.metric must be one of"),
        (["model=null"], "a config group cannot be null"),
        (["objective.metric=invalid_answers"], "exists for task=label_generation alone"),
        (["task.focal_gamma=-1"], "task.focal_gamma must be >= 0, got -1.0"),
        (["task.few_shot=3"], "task.few_shot is for task=label_generation; leave it out for task=multilabel_head"),
        (["task.sequence_packing=true"], "task.sequence_packing is for task=label_generation"),
        ([*GENERATION, "task.focal_gamma=2"], "task.focal_gamma=2 is for class heads"),
        ([*GENERATION, "task.few_shot=-1"], "task.few_shot must be >= 0, got -1"),
        (
            [*GENERATION, "task.decoding=constrain"],
            'must be one of constrained, free, got constrain; did you mean "con',
        ),
        ([*GENERATION, "task.probabilities=exat"], 'must be one of exact, sampled, none, got exat; did you mean "exac'),
        ([*GENERATION, "task.max_exact_labels=0"], "task.max_exact_labels must be >= 1, got 0"),
        ([*GENERATION, "task.probability_tolerance=1"], "task.probability_tolerance must be >= 0 and < 1, got 1.0"),
        ([*GENERATION, "task.probability_samples=1"], "task.probability_samples must be >= 2, got 1"),
        (["hardware.device=tpu"], "hardware.device must be auto, cpu, cuda or cuda:N, got tpu"),
        (["hardware=cpu", "hardware.precision=fp16"], "hardware.precision=fp16 needs a GPU"),
        (["model=gemma3_270m", "hardware.precision=fp16"], "overflows in Gemma 3"),
        (["model=gemma3_tiny", "hardware.precision=fp16"], "overflows in Gemma 3"),
        (["seed=-1"], "seed must be >= 0, got -1"),
        (["model=custom"], "model.path is not set"),
        (["model=mini"], 'model=mini: no such option; did you mean "minilm"?'),
        (["lora.rank=3"], "lora.rank: no such key"),
        (["lora.droput=.1"], 'did you mean "lora.dropout"?'),
        (["+lora.zz=1"], "lora.zz: no such key"),
        (["sheduler=linear"], 'did you mean "scheduler"?'),
        (["lora.r=abc"], "lora.r must be a whole number, got abc"),
        (["lora.r=[1"], "not a valid override"),
    ],
)
def test_mistakes_are_told_in_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(Exception) as caught:
        compose(overrides)
    told = as_user_error(caught.value)
    assert isinstance(told, UserError)
    assert message in str(told)
    assert "\n" not in str(told)


def test_our_own_failures_are_not_taken_for_mistakes() -> None:
    assert as_user_error(ValueError("ours")) is None


def test_known_keys_are_dotted_and_whole() -> None:
    keys = set(known_keys())
    assert {"lora", "lora.r", "scheduler.warmup_steps", "seed"} <= keys


def test_alpha_and_head_learning_rate_follow_unless_given() -> None:
    conf = compose(["lora.r=24"])
    assert conf.lora.effective_alpha == 48
    assert conf.lora.effective_head_learning_rate == pytest.approx(10 * conf.lora.learning_rate)
    conf = compose(["lora.r=24", "lora.alpha=64", "lora.head_learning_rate=.5"])
    assert (conf.lora.effective_alpha, conf.lora.effective_head_learning_rate) == (64, 0.5)


@pytest.mark.parametrize(
    ("overrides", "number", "name"),
    [
        (["lora.r=24", "lora.alpha=64", "lora.dropout=.1"], 3, "exp3_r24_a64_d10_linear"),
        (["lora.r=32", "lora.alpha=48", "scheduler=cosine"], 8, "exp8_r32_a48_d05_cosine"),
        (["lora.alpha=2.5", "lora.dropout=.125"], None, "r16_a2p5_d12p5_linear"),
        (["model=qwen3_tiny"], 0, "exp0_qwen3_tiny_r16_a32_d05_linear"),
        (["name=mine"], 4, "mine"),
    ],
)
def test_trials_are_named_in_the_published_form(overrides: list[str], number: int | None, name: str) -> None:
    assert trial_name(compose(overrides), number, overrides) == name


def test_rows_are_longer_where_prompts_are_needed_unless_given() -> None:
    assert compose([]).data.max_length == 128
    assert compose(GENERATION).data.max_length == 512
    assert compose([*GENERATION, "data.max_length=96"]).data.max_length == 96


def test_the_container_composes_again() -> None:
    from omegaconf import OmegaConf

    from emotion_sweeps.config.compose import to_conf

    container = as_container(compose(["lora.r=24"]))
    assert as_container(to_conf(OmegaConf.create(container))) == container
