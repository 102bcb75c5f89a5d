"""Trial names in the published form: `exp3_r24_a64_d10_linear_augmented`."""

from __future__ import annotations

from collections.abc import Sequence

from emotion_sweeps.config.schema import TrainConf


def number_text(value: float) -> str:
    """A number as it stands in a name: 48.0 -> `48`, 2.5 -> `2p5`."""
    return f"{value:g}".replace(".", "p").replace("-", "m").replace("+", "")


def dropout_text(dropout: float) -> str:
    """Dropout in percent, two digits at least: .05 -> `d05`, .1 -> `d10`, .125 -> `d12p5`."""
    percent = 100 * dropout
    whole = abs(percent - round(percent)) < 1e-9
    return f"d{round(percent):02d}" if whole else f"d{number_text(round(percent, 6))}"


def trial_name(conf: TrainConf, number: int | None, overrides: Sequence[str] = ()) -> str:
    """The given name, or one made from the settings; other overridden groups that tell trials apart are added.

    Args:
        number: the trial's number in its sweep, None for a single run.
        overrides: the job's overrides (`key=value`); an overridden model, task or data set is named.
    """
    if conf.name:
        return conf.name
    keys = {o.lstrip("+").split("=", 1)[0] for o in overrides}
    lora, parts = conf.lora, [] if number is None else [f"exp{number}"]
    parts += [part for key, part in (("model", conf.model.name), ("task", conf.task.name)) if key in keys]
    parts += [
        f"r{lora.r}",
        f"a{number_text(lora.effective_alpha)}",
        dropout_text(lora.dropout),
        conf.scheduler.name,
    ]
    if "lora.learning_rate" in keys:
        parts.append(f"lr{lora.learning_rate:.1e}".replace("+", ""))
    if "seed" in keys:
        parts.append(f"s{conf.seed}")
    if conf.augment.name != "none":
        parts.append("augmented")
    return "_".join(parts)
