"""The sampler of a study: built from `hydra/sweeper/sampler`, asked until it proposes what has not been run yet.

Defaults differ from the official sweeper's where a shared study needs it: TPE is multivariate, groups conditional
parameters and holds running trials for bad (`constant_liar`), and every sampler is seeded.
"""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from emotion_sweeps.errors import UserError
from emotion_sweeps.notices import notice_once
from emotion_sweeps.sweeps import ledger
from emotion_sweeps.sweeps.ledger import Cell
from emotion_sweeps.sweeps.search import Proposal
from emotion_sweeps.sweeps.space import Space, Value, override_text
from emotion_sweeps.sweeps.suggest import Hook, Suggestion, as_seen_by_sampler, seed_for, suggest

TRIES = 10
TPE = "optuna.samplers.TPESampler"
GRID = "optuna.samplers.GridSampler"
OUR_TPE = ("multivariate", "group", "constant_liar")
_WHITELIST = ("hydra_plugins.hydra_optuna_sweeper.*", "optuna.samplers.*")


def sampler_settings(conf: Mapping[str, Any], typed: Sequence[str], seed: int) -> dict[str, Any]:
    """The sampler's settings with our defaults where the command line does not name them.

    Args:
        conf: of `hydra/sweeper/sampler`.
        typed: the `hydra.*` overrides of the command line.
    """
    settings = {str(k): v for k, v in conf.items()}
    if settings.get("_target_") == TPE:
        for name in OUR_TPE:
            if not any(o.lstrip("+").startswith(f"hydra.sweeper.sampler.{name}=") for o in typed):
                settings[name] = True
    if settings.get("seed") is None:
        settings["seed"] = seed
    return settings


def build_sampler(settings: Mapping[str, Any], seed: int) -> optuna.samplers.BaseSampler:
    """The sampler, seeded for one suggestion (a quasi-random sequence keeps its one seed).

    Raises:
        UserError: it needs a package that is not installed, or refuses its settings.
    """
    from hydra.utils import instantiate

    final = dict(settings)
    if not str(final["_target_"]).endswith("QMCSampler"):
        final["seed"] = seed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = instantiate(final, _execution_whitelist_=_WHITELIST)
    except Exception as error:
        cause = error.__cause__ or error
        raise UserError(
            f"hydra/sweeper/sampler: {str(final['_target_']).rsplit('.', 1)[-1]} cannot be made: "
            f"{' '.join(str(cause).split())[:300]}"
        ) from None
    assert isinstance(sampler, optuna.samplers.BaseSampler)
    return sampler


@dataclass
class Proposer:
    """Asks a sampler for what has not been run."""

    study: optuna.Study
    space: Space
    settings: Mapping[str, Any]
    identify: Callable[[Sequence[str]], str]
    warm: Sequence[FrozenTrial] = ()
    hook: Hook | None = None

    def __call__(self, trials: Sequence[FrozenTrial], number: int, taken: set[str]) -> Proposal | None:
        """A configuration whose identity is not in `taken`; None when the space holds no other."""
        maximize = self.study.directions[0] == optuna.study.StudyDirection.MAXIMIZE
        paused = {t.number for t in trials if ledger.is_paused(t)}
        seen = [*self.warm, *as_seen_by_sampler(trials, paused, maximize)]
        for attempt in range(TRIES):
            sampler = build_sampler(self.settings, seed_for(int(self.settings["seed"]), number, attempt))
            found = self._ask(sampler, seen, number)
            overrides = self._overrides(found)
            identity = self.identify(overrides)
            if identity not in taken:
                cell = Cell({**found.params, **found.hook_params}, overrides, identity)
                return Proposal(cell, found.distributions, found.system_attrs)
        return self._any_other(number, taken)

    def _ask(self, sampler: optuna.samplers.BaseSampler, seen: Sequence[FrozenTrial], number: int) -> Suggestion:
        level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return suggest(self.study, self.space, sampler, seen, number, self.hook)
        except ModuleNotFoundError as error:
            raise UserError(
                f"hydra/sweeper/sampler={type(sampler).__name__} needs the package {error.name}; "
                f"pip install {error.name}"
            ) from None
        finally:
            optuna.logging.set_verbosity(level)

    def _overrides(self, found: Suggestion) -> tuple[str, ...]:
        added = [f"{name}={override_text(value)}" for name, value in found.hook_params.items()]
        return tuple([*self.space.overrides(found.params), *added])

    def _any_other(self, number: int, taken: set[str]) -> Proposal | None:
        """A cell drawn from those that are left, where the sampler repeats itself."""
        if not self.space.finite or self.hook is not None:
            notice_once(f"the sampler proposed nothing new in {TRIES} tries; the search ends here")
            return None
        cells: list[dict[str, Value]] = list(self.space.cells())
        random.Random(seed_for(int(self.settings["seed"]), number, TRIES)).shuffle(cells)
        distributions = {p.name: p.distribution for p in self.space.params}
        for params in cells:
            overrides = tuple(self.space.overrides(params))
            identity = self.identify(overrides)
            if identity not in taken:
                return Proposal(Cell(dict(params), overrides, identity), distributions)
        return None


def load_hook(path: str | None, config: Any) -> Hook | None:
    """The user's `custom_search_space`: a function of the config and the trial, by its dotted path."""
    if not path:
        return None
    from hydra.utils import get_method

    try:
        function = get_method(path)
    except Exception as error:
        raise UserError(f"hydra.sweeper.custom_search_space={path} cannot be imported ({error})") from None
    return lambda trial: function(config, trial)


logging.getLogger("optuna").setLevel(logging.WARNING)
