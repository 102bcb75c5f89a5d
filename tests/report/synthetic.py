"""Synthetic studies whose truth is known: the generator, and the judge of what a report says about them.

    python tests/report/synthetic.py --studies 200 --seed 20260901

A study is drawn from its seed alone: a design (grid, grid with holes, random search, a search that homes in on what was
good, settings that move together, a handful of runs), which settings matter and by how much, whether two of them
interact, seeds, the kind of noise, and whether the worst runs were pruned. The unit is the noise of one run, sd 1.

What counts as a false finding: an effect (or a difference called "more than chance") whose levels do not differ in
truth or differ the other way round; an interaction of settings whose effects add up; a setting called confounded
although two runs differ in it alone; a configuration ruled out as the best that is in truth as good as the first.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emotion_sweeps.report.findings import Finding
from emotion_sweeps.report.patterns import find_patterns
from emotion_sweeps.report.ranking import Ranking, rank
from emotion_sweeps.report.results import Point, RunRow
from emotion_sweeps.report.winner import not_ruled_out

LEVELS: dict[str, list[Any]] = {
    "rank": [8, 16, 24, 32],
    "alpha": [16, 32, 48, 64],
    "dropout": [0.0, 0.05, 0.1],
    "scheduler": ["linear", "cosine", "constant"],
    "learning rate": [1e-4, 3e-4, 1e-3, 3e-3],
    "augmentation": ["none", "synonyms"],
    "model": ["minilm", "roberta_base"],
}
Setting = dict[str, Any]
PAIRED_SD = float(np.sqrt(2.0))  # of the difference between two single runs


@dataclass
class Truth:
    """The mean of a run, known exactly: one term a setting, and joint terms."""

    terms: dict[str, dict[Any, float]]  # setting -> level -> offset
    slope: Callable[[float], float] | None = None  # of a continuous learning rate
    joint: dict[tuple[str, str], dict[tuple[Any, Any], float]] = field(default_factory=dict)

    def mean(self, setting: Setting) -> float:
        total = sum(by_level[setting[name]] for name, by_level in self.terms.items() if name in setting)
        if self.slope is not None:
            total += self.slope(setting["learning rate"])
        return total + sum(cells[setting[a], setting[b]] for (a, b), cells in self.joint.items())


@dataclass
class Study:
    """Runs and the truth behind them."""

    kind: str
    runs: list[RunRow]
    settings: list[Setting]  # of the runs, in their order
    truth: Truth


@dataclass
class Verdict:
    """What a report said about a study, judged."""

    kind: str
    false: list[str]
    found: list[Finding]
    missed_intervals: int  # effects whose interval does not hold the true difference
    intervals: int


def run_of(number: int, setting: Setting, seed: int, value: float, status: str = "complete") -> RunRow:
    """A run whose validation loss is 100 + `value` (far from zero, so that nothing depends on its sign)."""
    lora = {
        "r": setting.get("rank", 16),
        "alpha": setting.get("alpha", 32),
        "dropout": setting.get("dropout", 0.05),
        "learning_rate": setting.get("learning rate", 1e-3),
    }
    point = Point(100.0 + value, 10, 1.0)
    return RunRow(
        folder=Path(f"/nowhere/{number}"),
        name=f"exp{number}",
        status=status,
        number=number,
        model=setting.get("model", "minilm"),
        task="multilabel_head",
        augment=setting.get("augmentation", "none"),
        scheduler=setting.get("scheduler", "linear"),
        data_name="demo",
        fingerprint="a" * 64,
        # Two models are ordered by macro-F1 unless one is the objective: then accuracy carries the value.
        objective_metric="accuracy" if "model" in setting else "loss",
        best={"loss": point, "accuracy": Point(-point.value, 10, 1.0)},
        lora=lora,
        seed=seed,
        trainable_parameters=1000 * int(lora["r"]),
        wall_time_s=60.0,
        config={
            "lora": dict(lora),
            "scheduler": {"name": setting.get("scheduler", "linear")},
            "augment": {"name": setting.get("augmentation", "none")},
            "model": {"name": setting.get("model", "minilm")},
            "seed": seed,
        },
    )


# ---- truth


def draw_terms(rng: np.random.Generator, levels: dict[str, list[Any]], active: float) -> dict[str, dict[Any, float]]:
    """Each setting does nothing with probability 1 - `active`, else its levels differ by 0.5 to 4 noise sd."""
    terms = {}
    for name, values in levels.items():
        offsets = np.zeros(len(values))
        if rng.random() < active:
            steps = rng.uniform(0.5, 4.0, len(values)) * (rng.random(len(values)) < 0.7)
            offsets = rng.permutation(np.cumsum(steps))
        terms[name] = dict(zip(values, offsets.tolist(), strict=True))
    return terms


def draw_levels(rng: np.random.Generator, most_cells: int) -> dict[str, list[Any]]:
    """Two to five settings of two to four levels each, at most `most_cells` cells."""
    names = [str(n) for n in rng.permutation(list(LEVELS))[: rng.integers(2, 6)]]
    chosen: dict[str, list[Any]] = {}
    cells = 1
    for name in names:
        number = int(rng.integers(2, len(LEVELS[name]) + 1))
        if cells * number > most_cells:
            continue
        cells *= number
        chosen[name] = LEVELS[name][:number]
    return chosen


def noise(rng: np.random.Generator, kind: str, settings: list[Setting], seeds: int) -> np.ndarray:
    """(num_settings, seeds) noise of sd 1: normal, heavy-tailed, larger at high learning rates, or with a part that
    a seed does to every configuration alike."""
    shape = (len(settings), seeds)
    if kind == "heavy tails":
        return rng.standard_t(4, shape) / np.sqrt(2.0)
    if kind == "uneven":
        high = np.array([setting.get("learning rate", 0) >= 1e-3 for setting in settings])
        return rng.normal(size=shape) * np.where(high, 1.3, 0.8)[:, None]
    if kind == "shared seeds":
        return np.sqrt(0.5) * (rng.normal(size=shape) + rng.normal(size=(1, seeds)))
    return rng.normal(size=shape)


# ---- designs


def grid(levels: dict[str, list[Any]]) -> list[Setting]:
    return [dict(zip(levels, values, strict=True)) for values in itertools.product(*levels.values())]


def searched(rng: np.random.Generator, levels: dict[str, list[Any]], number: int, truth: Truth, *, homing: bool):
    """Random search with a continuous learning rate; `homing` takes most values from the best quarter so far, as
    a sampler does, seeing the noisy values. Returns settings and values."""
    settings: list[Setting] = []
    values: list[float] = []
    for trial in range(number):
        setting: Setting = {"learning rate": float(np.exp(rng.uniform(np.log(1e-4), np.log(3e-3))))}
        setting |= {name: options[rng.integers(len(options))] for name, options in levels.items()}
        if homing and trial >= 10 and rng.random() < 0.75:
            best = np.argsort(values)[: max(3, trial // 4)]
            for name in setting:
                if rng.random() < 0.8:
                    setting[name] = settings[int(rng.choice(best))][name]
            setting["learning rate"] = float(np.clip(setting["learning rate"] * np.exp(rng.normal() * 0.2), 1e-4, 3e-3))
        settings.append(setting)
        values.append(truth.mean(setting) + float(rng.normal()))
    return settings, np.array(values)[:, None]


def draw_study(seed: int, active: float = 0.5) -> Study:
    """One study, from its seed alone."""
    rng = np.random.default_rng([20260901, seed])
    kinds = ["grid", "grid with seeds", "grid with holes", "random", "homing", "together", "handful", "pruned"]
    kind = str(rng.choice(kinds))
    levels = draw_levels(rng, most_cells=16 if kind == "grid with seeds" else 96)
    if kind in ("random", "homing"):
        levels.pop("learning rate", None)
        truth = Truth(draw_terms(rng, levels, active))
        height = float(rng.uniform(1, 8)) if rng.random() < active else 0.0
        centre = float(np.log(rng.uniform(2e-4, 2e-3)))
        truth.slope = lambda rate: height * (np.log(rate) - centre) ** 2 / 3
        settings, values = searched(rng, levels, int(rng.integers(25, 121)), truth, homing=kind == "homing")
        return _study(kind, settings, values, truth)
    truth = Truth(draw_terms(rng, levels, active))
    _add_joint(rng, levels, truth)
    settings = _cells(rng, kind, grid(levels))
    seeds = int(rng.integers(2, 6)) if kind == "grid with seeds" else 1
    which = str(rng.choice(["normal", "normal", "heavy tails", "uneven", "shared seeds"]))
    values = np.array([truth.mean(s) for s in settings])[:, None] + noise(rng, which, settings, seeds)
    pruned = np.zeros(len(settings), bool)
    if kind == "pruned" and len(settings) > 8:
        pruned[np.argsort(values[:, 0])[int(0.6 * len(settings)) :]] = True
    return _study(kind, settings, values, truth, pruned)


def _cells(rng: np.random.Generator, kind: str, cells: list[Setting]) -> list[Setting]:
    """The part of a grid that was run."""
    if kind == "grid with holes":
        return [cell for cell in cells if rng.random() < 0.7] or cells
    if kind == "handful":
        return [cells[i] for i in rng.permutation(len(cells))[: rng.integers(3, 9)]]
    if kind == "together":  # the second setting follows the first
        first, second = list(cells[0])[:2]
        order = {value: i for i, value in enumerate(dict.fromkeys(cell[first] for cell in cells))}
        options = list(dict.fromkeys(cell[second] for cell in cells))
        return [cell for cell in cells if cell[second] == options[order[cell[first]] % len(options)]]
    return cells


def _add_joint(rng: np.random.Generator, levels: dict[str, list[Any]], truth: Truth) -> None:
    """In a fifth of the studies two settings depend on each other."""
    if len(levels) < 2 or rng.random() > 0.2:
        return
    a, b = (str(n) for n in rng.permutation(list(levels))[:2])
    size = rng.uniform(2.0, 5.0)
    truth.joint[a, b] = {(x, y): float(size * rng.normal()) for x in levels[a] for y in levels[b]}


def _study(
    kind: str, settings: list[Setting], values: np.ndarray, truth: Truth, pruned: np.ndarray | None = None
) -> Study:
    runs, of = [], []
    for number, (setting, row) in enumerate(zip(settings, values, strict=True)):
        status = "pruned" if pruned is not None and pruned[number] else "complete"
        for seed, value in enumerate(row):
            runs.append(run_of(number * 100 + seed, setting, seed, float(value), status))
            of.append(setting)
    return Study(kind, runs, of, truth)


# ---- the judge


def judge(study: Study) -> Verdict:
    """Analyse a study as the report does and compare what it says with the truth."""
    ranking = rank(study.runs)
    patterns = find_patterns(ranking.entries, ranking.rule.metric, minimize=ranking.rule.minimize)
    settings = {run.name: setting for run, setting in zip(study.runs, study.settings, strict=True)}
    ran = [settings[entry.best_run.name] for entry in ranking.entries]
    factors = {factor.name: factor for factor in patterns.factors}
    false: list[str] = []
    missed = intervals = 0
    for finding in patterns.findings:
        if finding.kind == "interaction":
            first, second = finding.factor.split(" x ")
            sides = _names(first, ran[0]), _names(second, ran[0])
            if not any((a in x and b in y) for a, b in study.truth.joint for x, y in (sides, sides[::-1])):
                false.append(finding.statement)
        elif finding.kind == "confounded":
            if finding.statement.startswith(f"{finding.factor} is") and _alone(finding.factor, ran):
                false.append(finding.statement)
        elif finding.kind in ("effect", "tie"):
            true = true_difference(study.truth, finding, factors, ran)
            sure = finding.kind == "effect" or "more than chance" in finding.statement
            if sure and true <= 0:
                false.append(f"{finding.statement} [truth {true:.3f}]")
            if finding.kind == "effect" and finding.interval is not None:
                intervals += 1
                missed += not finding.interval[0] <= true <= finding.interval[1]
    false += _wrongly_ruled_out(ranking, patterns.noise, study.truth, settings)
    return Verdict(study.kind, false, list(patterns.findings), missed, intervals)


def _names(factor: str, setting: Setting) -> list[str]:
    """The settings of a factor: several where they always moved together."""
    return [factor] if factor in setting else factor.split(" / ")


def _alone(factor: str, ran: list[Setting]) -> bool:
    """Whether two configurations differ in `factor` and in nothing else."""
    names = _names(factor, ran[0])
    return any(
        all(one[k] != other[k] for k in names) and all(one[k] == other[k] for k in one if k not in names)
        for one, other in itertools.combinations(ran, 2)
    )


def true_difference(truth: Truth, finding: Finding, factors: dict[str, Any], ran: list[Setting]) -> float:
    """By how much `better` is better than `worse` (a lower mean is better), averaged over the runs compared.

    Paired findings: over the matched runs. Adjusted ones: over the other settings as they occur, which for a
    learning rate in ranges are the rates within each.
    """
    factor = factors[finding.factor]
    names = _names(finding.factor, ran[0])
    codes = factor.codes
    better, worse = (factor.levels.index(level) for level in (finding.better, finding.worse))
    means = np.array([truth.mean(setting) for setting in ran])
    if finding.n_pairs:
        cells: dict[str, dict[int, list[float]]] = {}
        for code, setting, mean in zip(codes, ran, means, strict=True):
            rest = str([(k, v) for k, v in setting.items() if k not in names])
            cells.setdefault(rest, {}).setdefault(int(code), []).append(float(mean))
        both = [np.mean(c[worse]) - np.mean(c[better]) for c in cells.values() if better in c and worse in c]
        return _exact(float(np.mean(both)))
    if names == ["learning rate"] and truth.slope is not None:
        rates = np.array([truth.slope(s["learning rate"]) for s in ran])
        return _exact(float(rates[codes == worse].mean() - rates[codes == better].mean()))
    at_better, at_worse = (
        {name: ran[int(np.flatnonzero(codes == code)[0])][name] for name in names} for code in (better, worse)
    )
    return _exact(float(np.mean([truth.mean(s | at_worse) - truth.mean(s | at_better) for s in ran])))


def _exact(difference: float) -> float:
    """Rounding is no difference."""
    return 0.0 if abs(difference) < 1e-9 else difference


def _wrongly_ruled_out(ranking: Ranking, noise_estimate: Any, truth: Truth, settings: dict[str, Setting]) -> list[str]:
    if noise_estimate is None or len(ranking.entries) < 2:
        return []
    kept = {entry.best_run.name for entry in not_ruled_out(ranking, noise_estimate)}
    first = truth.mean(settings[ranking.entries[0].best_run.name])
    return [
        f"{entry.best_run.name} was ruled out as the best"
        for entry in ranking.entries[1:]
        if entry.best_run.name not in kept and truth.mean(settings[entry.best_run.name]) <= first + 1e-9
    ]


# ---- power: an effect of one noise sd over 12 pairs

DESIGNS: dict[str, tuple[dict[str, list[Any]], int]] = {
    "2 schedulers x 12 seeds": ({"scheduler": ["linear", "cosine"]}, 12),
    "2 schedulers x 3 ranks x 4 seeds": ({"scheduler": ["linear", "cosine"], "rank": [16, 24, 32]}, 4),
    "2 schedulers x 3 ranks x 2 dropouts x 2 alphas": (
        {"scheduler": ["linear", "cosine"], "rank": [16, 24, 32], "dropout": [0.05, 0.1], "alpha": [48, 64]},
        1,
    ),
}


def power_study(design: str, seed: int, size: float, *, others: bool) -> Study:
    """A study in which linear is `size` better than cosine over 12 pairs of runs.

    Args:
        size: in units of the noise of one run; PAIRED_SD is one sd of the difference within a pair.
        others: whether the other settings matter too (levels 2 to 5 sd of a pair apart) or do nothing.
    """
    rng = np.random.default_rng([20260902, seed])
    levels, seeds = DESIGNS[design]
    terms = {"scheduler": {"linear": 0.0, "cosine": size}}
    for name, values in levels.items():
        if name != "scheduler":
            steps = np.cumsum(rng.uniform(2, 5, len(values))) * PAIRED_SD * others
            terms[name] = dict(zip(values, rng.permutation(steps).tolist(), strict=True))
    truth = Truth(terms)
    settings = grid(levels)
    values = np.array([truth.mean(s) for s in settings])[:, None] + rng.normal(size=(len(settings), seeds))
    return _study(design, settings, values, truth)


def finds_scheduler(study: Study) -> bool:
    """Whether the report says that linear beats cosine over 12 pairs."""
    return any(
        f.factor == "scheduler" and f.kind == "effect" and f.better == "linear" and f.n_pairs == 12
        for f in judge(study).found
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the first study; the others follow")
    parser.add_argument("--active", type=float, default=0.5, help="probability that a setting matters")
    arguments = parser.parse_args()
    seeds = range(arguments.seed, arguments.seed + arguments.studies)
    verdicts = [judge(draw_study(seed, arguments.active)) for seed in seeds]
    wrong = [v for v in verdicts if v.false]
    print(f"{len(wrong)} of {len(verdicts)} studies contain a false finding ({len(wrong) / len(verdicts):.1%})")
    for verdict in wrong:
        print(f"  {verdict.kind}: {verdict.false[0]}")
    for kind in sorted({v.kind for v in verdicts}):
        mine = [v for v in verdicts if v.kind == kind]
        effects = sum(f.kind == "effect" for v in mine for f in v.found)
        print(f"  {kind}: {sum(bool(v.false) for v in mine)} of {len(mine)} false; {effects} effects")
    effects, missed = sum(v.intervals for v in verdicts), sum(v.missed_intervals for v in verdicts)
    print(f"{missed} of {effects} intervals of effects miss the true difference")
    for design in DESIGNS:
        for size, name in ((PAIRED_SD, "one sd of a pair's difference"), (1.0, "one sd of a single run")):
            for others in (False, True):
                studies = [power_study(design, seed, size, others=others) for seed in seeds]
                share = np.mean([finds_scheduler(study) for study in studies])
                print(f"{design}, others {'matter' if others else 'do nothing'}, {name}: found in {share:.1%}")


if __name__ == "__main__":
    main()
