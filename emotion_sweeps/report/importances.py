"""Each factor's share of the variance: fANOVA on at most 1,000 sampled runs, PED-ANOVA where that fails.

fANOVA (Hutter, Hoos and Leyton-Brown 2014) fits a random forest to (settings -> metric) and takes apart its variance;
it costs 5 s at 1,000 runs and minutes at 10,000, hence the sample. Below 20 configurations a forest has nothing to
learn from, and the shares are those of the additive model's sums of squares. A share says how much a factor moved the
metric, not which way.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from emotion_sweeps.report.factors import Factor
from emotion_sweeps.report.findings import Importance, Importances
from emotion_sweeps.report.linear import Array, additive_design
from emotion_sweeps.report.variation import Observations

MOST_RUNS = 1000
_FEWEST = 20
_SEED = 0
_TREES = 32  # half of the default: as sure for shares in whole per cent, in half the time


def importances_of(varying: Sequence[Factor], seen: Observations) -> Importances:
    """The shares of all factors, largest first; none where there is nothing to share out, with the reason."""
    number = len(seen.y)
    if not varying:
        return Importances("", "Nothing varied between the runs.")
    if float(np.ptp(seen.y)) <= 1e-12 * max(seen.scale, 1e-300):
        return Importances("", "Every run has the same value, so there is no variance to share out.")
    if number < _FEWEST:
        return _decomposed(varying, seen)
    if number <= MOST_RUNS:
        chosen, which = np.arange(number), f"all {number:,} configurations"
    else:
        chosen = np.sort(np.random.default_rng(_SEED).choice(number, MOST_RUNS, replace=False))
        which = f"{MOST_RUNS:,} of {number:,} configurations, sampled (it takes minutes on more)"
    method, shares, why = _by_optuna(varying, seen.y, chosen)
    note = f"Computed by {method} on {which}.{why}"
    return Importances(method, note, _sorted(varying, shares))


def _sorted(varying: Sequence[Factor], shares: Sequence[float]) -> tuple[Importance, ...]:
    total = float(sum(shares))
    scaled = [share / total if total > 0 else 0.0 for share in shares]
    made = [Importance(factor.name, float(share)) for factor, share in zip(varying, scaled, strict=True)]
    return tuple(sorted(made, key=lambda one: -one.share))


def _by_optuna(varying: Sequence[Factor], y: Array, chosen: np.ndarray) -> tuple[str, list[float], str]:
    """(method, shares in the order of `varying`, why not fANOVA)."""
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.ERROR)
    try:
        study = _study(varying, y, chosen)
        try:
            found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(n_trees=_TREES, seed=_SEED))
            return "fANOVA", [found.get(str(i), 0.0) for i in range(len(varying))], ""
        except Exception as error:  # a fallback that says so: the shares are no reason to lose the report
            found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
            why = f" fANOVA failed ({type(error).__name__})."
            return "PED-ANOVA", [found.get(str(i), 0.0) for i in range(len(varying))], why
    finally:
        optuna.logging.set_verbosity(level)


def _study(varying: Sequence[Factor], y: Array, chosen: np.ndarray) -> Any:
    """The runs as a study in memory; parameters are named by their position, as names are foreign text."""
    import optuna

    distributions: dict[str, Any] = {}
    columns: list[list[Any]] = []
    for index, factor in enumerate(varying):
        if factor.exact is None:
            distributions[str(index)] = optuna.distributions.CategoricalDistribution(range(len(factor.levels)))
            columns.append(factor.codes[chosen].tolist())
        else:
            low, high = float(factor.exact.min()), float(factor.exact.max())
            log = low > 0 and high / low >= 10
            distributions[str(index)] = optuna.distributions.FloatDistribution(low, high, log=log)
            columns.append(factor.exact[chosen].tolist())
    study = optuna.create_study()
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={str(i): column[row] for i, column in enumerate(columns)},
                distributions=distributions,
                value=float(y[trial]),
            )
            for row, trial in enumerate(chosen)
        ]
    )
    return study


def _decomposed(varying: Sequence[Factor], seen: Observations) -> Importances:
    """What each factor adds to an additive model of all the others."""
    number = len(seen.y)
    whole = additive_design(varying, seen.weights)
    if number - whole.rank < 1:
        few = f"{number} runs that differ in {len(varying)} settings leave nothing to compute shares from."
        return Importances("", few)
    _, left = whole.fit(seen.y)
    shares = []
    for factor in varying:
        rest = additive_design([other for other in varying if other is not factor], seen.weights)
        shares.append(max(0.0, rest.fit(seen.y)[1] - left))
    note = f"Computed by an additive model on {number} configurations, too few for fANOVA (from {_FEWEST})."
    return Importances("variance decomposition", note, _sorted(varying, shares))
