"""From a composed Hydra config to typed, checked objects, and the reverse."""

from __future__ import annotations

from typing import Any

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from emotion_sweeps.config.checks import check
from emotion_sweeps.config.register import register
from emotion_sweeps.config.schema import TrainConf
from emotion_sweeps.errors import UserError
from emotion_sweeps.paths import conf_dir


def to_conf(cfg: DictConfig) -> TrainConf:
    """Typed objects of a composed config, ranges and cross-field rules checked.

    Raises:
        UserError: the first rule that the config breaks.
    """
    # Through plain containers, so that a key appended with +key=value meets the schema again.
    plain = OmegaConf.to_container(OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k != "hydra"]), resolve=False)
    typed = OmegaConf.merge(OmegaConf.structured(TrainConf), OmegaConf.create(plain))
    missing = sorted(OmegaConf.missing_keys(typed))
    if missing:
        raise UserError(f"{missing[0]} is not set and has no default; give it as {missing[0]}=VALUE")
    conf: Any = OmegaConf.to_object(typed)
    assert isinstance(conf, TrainConf)
    check(conf)
    return conf


def as_container(conf: TrainConf) -> dict[str, Any]:
    """The resolved config as plain dicts and lists."""
    container: Any = OmegaConf.to_container(OmegaConf.structured(conf), resolve=True)
    assert isinstance(container, dict)
    return container


def compose(overrides: list[str], config_name: str = "train") -> TrainConf:
    """Compose a config from `conf/` without running anything (notebooks, tests, the report)."""
    import hydra

    register()
    if GlobalHydra.instance().is_initialized():
        return to_conf(hydra.compose(config_name, overrides))
    with hydra.initialize_config_dir(str(conf_dir())):
        return to_conf(hydra.compose(config_name, overrides))
