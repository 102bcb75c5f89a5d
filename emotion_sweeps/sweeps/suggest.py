"""One suggestion of an Optuna sampler, without a trace in the study until it is taken.

The sampler sees the study through a sketch: the real trials, those of a study to learn from (`warm`), and one virtual
trial that exists only here. So a repeated configuration is simply asked for again, and the trial that is finally taken
is written whole in one transaction. Each suggestion seeds its sampler from (seed, trial number, try): the outcome does
not depend on which process asks, nor on how often the sweep was interrupted.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from emotion_sweeps.errors import UserError
from emotion_sweeps.sweeps.space import Space, Value

VIRTUAL_ID = -1
Hook = Callable[[optuna.Trial], None]


@dataclass
class Suggestion:
    """What a sampler proposed: values by parameter name, and what it wants to remember about the trial."""

    params: dict[str, Value]
    distributions: dict[str, BaseDistribution]
    system_attrs: dict[str, Any] = field(default_factory=dict)
    hook_params: dict[str, Value] = field(default_factory=dict)  # added by custom_search_space


def suggest(
    study: optuna.Study,
    space: Space,
    sampler: optuna.samplers.BaseSampler,
    trials: Sequence[FrozenTrial],
    number: int,
    hook: Hook | None,
) -> Suggestion:
    """Ask `sampler` for the trial `number`, given `trials`."""
    sketch = _Sketch(study._storage, trials, number)
    shadow = optuna.Study(study.study_name, sketch, sampler=sampler, pruner=optuna.pruners.NopPruner())
    trial = optuna.Trial(shadow, VIRTUAL_ID)
    chosen: dict[str, Value] = {}
    for param in space.params:
        if param in space.active(chosen):
            chosen[param.name] = trial._suggest(param.name, param.distribution)
    virtual = sketch.virtual
    if hook is None:
        return Suggestion(chosen, dict(virtual.distributions), dict(virtual.system_attrs))
    hook(trial)
    added = {name: value for name, value in virtual.params.items() if name not in chosen}
    _refuse_overlap(space, added)
    return Suggestion(chosen, dict(virtual.distributions), dict(virtual.system_attrs), added)


def _refuse_overlap(space: Space, added: Mapping[str, Value]) -> None:
    fixed = {o.lstrip("+~").split("=", 1)[0] for o in space.fixed}
    both = sorted(set(added) & (fixed | set(space.keys)))
    if both:
        raise UserError(
            f"custom_search_space suggests {both[0]}, which is already fixed or searched; take it out of one"
        )


def seed_for(base: int, number: int, attempt: int) -> int:
    """A seed of its own for each suggestion."""
    return zlib.crc32(f"{base}/{number}/{attempt}".encode())


def as_seen_by_sampler(trials: Sequence[FrozenTrial], paused: Container[int], maximize: bool) -> list[FrozenTrial]:
    """The trials, paused ones as pruned with their best value so far, which is what they say about their region."""
    seen = []
    for trial in trials:
        if trial.number in paused and trial.intermediate_values:
            values = trial.intermediate_values.values()
            trial = copy.copy(trial)
            trial.state = TrialState.PRUNED
            trial._values = [max(values) if maximize else min(values)]
            trial.datetime_complete = trial.datetime_start
        seen.append(trial)
    return seen


class _Sketch(BaseStorage):
    """A read-only view of a study's trials with one virtual, running trial."""

    def __init__(self, real: BaseStorage, trials: Sequence[FrozenTrial], number: int) -> None:
        self._real, self._trials = real, list(trials)
        self.virtual = FrozenTrial(
            number=number, trial_id=VIRTUAL_ID, state=TrialState.RUNNING, value=None, values=None,
            datetime_start=datetime.now(), datetime_complete=None, params={}, distributions={}, user_attrs={},
            system_attrs={}, intermediate_values={},
        )  # fmt: skip

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = [*self._trials, self.virtual]
        chosen = [t for t in trials if states is None or t.state in states]
        return copy.deepcopy(chosen) if deepcopy else chosen

    def get_trial(self, trial_id: int) -> FrozenTrial:
        if trial_id == VIRTUAL_ID:
            return copy.deepcopy(self.virtual)
        return next(t for t in self._trials if t._trial_id == trial_id)

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        return dict(self.virtual.system_attrs) if trial_id == VIRTUAL_ID else self.get_trial(trial_id).system_attrs

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        self.virtual.params[param_name] = distribution.to_external_repr(param_value_internal)
        self.virtual.distributions[param_name] = distribution

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._only_virtual(trial_id).system_attrs[key] = value

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._only_virtual(trial_id).user_attrs[key] = value

    def _only_virtual(self, trial_id: int) -> FrozenTrial:
        assert trial_id == VIRTUAL_ID, "a sampler writes to its own trial alone"
        return self.virtual

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._real.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._real.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._real.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._real.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._real.get_study_system_attrs(study_id)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._real.set_study_system_attr(study_id, key, value)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._real.set_study_user_attr(study_id, key, value)

    def get_all_studies(self) -> list[Any]:
        raise NotImplementedError

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        raise NotImplementedError

    def delete_study(self, study_id: int) -> None:
        raise NotImplementedError

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        raise NotImplementedError

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        raise NotImplementedError

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        raise NotImplementedError
