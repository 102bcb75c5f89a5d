"""From plain values to trackers: metrics.jsonl always, the named listeners beside it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from emotion_sweeps.errors import UserError, did_you_mean
from emotion_sweeps.tracking.jsonl import JsonlTracker
from emotion_sweeps.tracking.tensorboard import TensorboardTracker
from emotion_sweeps.tracking.tracker import Tracker, Trackers
from emotion_sweeps.tracking.wandb import MODES, WandbTracker, has_credentials, quiet_session

LISTENERS = ("wandb", "tensorboard")


def check_trackers(listeners: Sequence[str], *, wandb_mode: str = "auto") -> None:
    """Say before training what would keep a listener from listening; quick unless W&B must be online.

    Raises:
        UserError: an unknown listener or mode, or a listener whose package is not installed.
    """
    for name in listeners:
        if name not in LISTENERS:
            raise UserError(
                f"tracking: unknown listener {name}; known are {', '.join(LISTENERS)}{did_you_mean(name, LISTENERS)}"
            )
        if find_spec(name) is None:
            raise UserError(
                f"tracking.{name}=true needs the package {name}, which is not installed; "
                f"pip install {name}, or set tracking.{name}=false"
            )
    if wandb_mode not in MODES:
        raise UserError(
            f"tracking.wandb_mode must be one of {', '.join(MODES)}, got {wandb_mode}{did_you_mean(wandb_mode, MODES)}"
        )
    if "wandb" in listeners and wandb_mode == "online" and not has_credentials(quiet_session()):
        raise UserError(
            "tracking.wandb_mode=online needs an API key, and none is configured; "
            "run `wandb login`, or take tracking.wandb_mode=offline"
        )


def open_trackers(
    listeners: Sequence[str] = (),
    *,
    wandb_project: str = "emotion_sweeps",
    wandb_entity: str | None = None,
    wandb_mode: str = "auto",
    extra: Sequence[Tracker] = (),
) -> Trackers:
    """The trackers of one run, not yet started.

    Args:
        listeners: any of `wandb`, `tensorboard`; metrics.jsonl is always written.
        wandb_mode: auto (online with an API key, else offline), online, offline, disabled.
        extra: further trackers of the caller's own.

    Raises:
        UserError: see `check_trackers`.
    """
    check_trackers(listeners, wandb_mode=wandb_mode)
    trackers: list[Tracker] = [JsonlTracker()]
    if "wandb" in listeners:
        trackers.append(WandbTracker(project=wandb_project, entity=wandb_entity, mode=wandb_mode))
    if "tensorboard" in listeners:
        trackers.append(TensorboardTracker())
    return Trackers([*trackers, *extra])
