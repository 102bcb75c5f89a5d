"""Where a trial runs: its folder, its number in the sweep, and what the sweep changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf


@dataclass(frozen=True)
class TrialPlace:
    """A trial's place on disk and in its sweep."""

    run_dir: Path
    number: int | None = None  # None for a single run
    sweep_dir: Path | None = None
    overrides: tuple[str, ...] = ()

    @property
    def in_sweep(self) -> bool:
        """Whether the trial is one of many: then its test part is predicted, but not scored."""
        return self.sweep_dir is not None

    @property
    def group(self) -> str:
        """What the trackers group by: the sweep's folder, or `single` for a run of its own."""
        if self.sweep_dir is None:
            return "single"
        parts = self.sweep_dir.parts
        return "/".join(parts[parts.index("multirun") + 1 :] if "multirun" in parts[:-1] else parts[-1:])

    @classmethod
    def from_hydra(cls, hydra_conf: Any) -> TrialPlace:
        """The place that Hydra gave to the running job."""
        in_sweep = "MULTIRUN" in str(hydra_conf.mode)
        return cls(
            run_dir=Path(hydra_conf.runtime.output_dir),
            number=int(hydra_conf.job.num) if in_sweep else None,
            sweep_dir=Path(hydra_conf.sweep.dir).resolve() if in_sweep else None,
            overrides=tuple(OmegaConf.to_container(hydra_conf.overrides.task) or ()),  # type: ignore[arg-type]
        )
