"""Pruners against brute force: what halving keeps, that nothing is left waiting, that the first rung already prunes."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from scipy.stats import wilcoxon

from emotion_sweeps.sweeps.pruning import PRUNERS, Board, Decision, Pruner, make_pruner
from emotion_sweeps.sweeps.pruning.rungs import quotas
from emotion_sweeps.sweeps.pruning.wilcoxon import p_worse

Table = list[list[float]]  # (num_trials, num_evaluations)
PAUSING = ("asha", "halving", "hyperband")


def pruner(
    name: str,
    *,
    factor: int = 2,
    first: int | None = 1,
    length: int | None = 8,
    maximize: bool = False,
    budget: float | None = None,
) -> Pruner:
    return make_pruner(
        name,
        reduction_factor=factor,
        min_resource=first,
        direction="maximize" if maximize else "minimize",
        max_resource=length,
        budget=budget,
    )


@dataclass
class Simulation:
    """A study whose slots act in random order; trials in `failing` crash before the evaluation given there."""

    table: Table
    pruner: Pruner
    slots: int = 1
    seed: int = 0
    failing: dict[int, int] = field(default_factory=dict)
    histories: dict[int, list[tuple[int, float]]] = field(default_factory=dict)
    complete: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    paused: set[int] = field(default_factory=set)
    running: list[int] = field(default_factory=list)
    promotions: list[tuple[int, Board]] = field(default_factory=list)

    def board(self) -> Board:
        histories = {trial: tuple(history) for trial, history in self.histories.items()}
        states = (frozenset(states) for states in (self.complete, self.ended, self.paused))
        return Board(histories, *states, len(self.table) - len(self.histories))

    def claim(self) -> bool:
        for trial in self.pruner.dropped(self.board()):
            self.paused.remove(trial)
            self.ended.add(trial)
        trial = self.pruner.promote(self.board())
        if trial is not None:
            self.promotions.append((trial, self.board()))
            self.paused.remove(trial)
        elif len(self.histories) < len(self.table):
            trial = len(self.histories)
            self.histories[trial] = []
        else:
            return False
        self.running.append(trial)
        return True

    def evaluate(self, trial: int) -> None:
        history, values = self.histories[trial], self.table[trial]
        if self.failing.get(trial) == len(history) + 1:
            self.running.remove(trial)
            self.ended.add(trial)
            return
        history.append((len(history) + 1, values[len(history)]))
        if len(history) == len(values):
            self.complete.add(trial)
            self.ended.add(trial)
            self.running.remove(trial)
            return
        decision = self.pruner.decide(trial, self.board())
        if decision is not Decision.GO:
            self.running.remove(trial)
            (self.paused if decision is Decision.PAUSE else self.ended).add(trial)

    def run(self) -> Simulation:
        rng = random.Random(self.seed)
        while True:
            while len(self.running) < self.slots and self.claim():
                pass
            if not self.running:
                return self
            self.evaluate(rng.choice(self.running))

    def trained(self) -> list[int]:
        return [len(self.histories[trial]) for trial in range(len(self.table))]


def table(seed: int, trials: int = 24, length: int = 8, *, holes: float = 0.0) -> Table:
    """Falling noisy curves that cross; with `holes` some values are not finite."""
    rng = random.Random(seed)
    rows = []
    for _ in range(trials):
        end, rate = rng.random(), rng.uniform(0.2, 2)
        row = [end + math.exp(-rate * e) + rng.gauss(0, 0.05) for e in range(length)]
        rows.append([rng.choice([math.nan, math.inf]) if rng.random() < holes else v for v in row])
    return rows


def rungs(first: int, factor: int, length: int) -> list[int]:
    return list(itertools.takewhile(lambda m: m < length, (first * factor**i for i in itertools.count())))


def textbook_halving(
    rows: Table, first: int, factor: int, *, maximize: bool, goes_on: Sequence[int] | None = None
) -> list[int]:
    """Evaluations of each trial when everybody is compared at once, rung by rung."""
    length = len(rows[0])
    trained, alive = [0] * len(rows), list(range(len(rows)))
    for level, m in enumerate(rungs(first, factor, length)):
        for trial in alive:
            trained[trial] = m
        fit = [t for t in alive if math.isfinite(rows[t][m - 1])]
        sign = -1 if maximize else 1
        fit.sort(key=lambda t: (min(sign * v for v in rows[t][:m] if math.isfinite(v)), t))
        alive = fit[: max(1, len(rows) // factor ** (level + 1)) if goes_on is None else goes_on[level]]
    for trial in alive:
        trained[trial] = length
    return trained


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize(("first", "factor", "length"), [(1, 2, 8), (1, 3, 8), (2, 2, 9), (1, 4, 5), (3, 2, 20)])
def test_halving_is_the_textbook_whatever_the_order_and_the_slots(
    first: int, factor: int, length: int, maximize: bool
) -> None:
    for seed in range(10):
        rng = random.Random(seed)
        rows = table(seed, trials=rng.randint(1, 30), length=length, holes=rng.choice([0, 0.1]))
        expected = textbook_halving(rows, first, factor, maximize=maximize)
        halving = pruner("halving", factor=factor, first=first, length=length, maximize=maximize)
        for slots in (1, 3, len(rows)):
            assert Simulation(rows, halving, slots, seed).run().trained() == expected


@pytest.mark.parametrize("budget", [1 / 3, 0.5])
@pytest.mark.parametrize(("factor", "length"), [(2, 8), (3, 8), (4, 10), (3, 6)])
def test_a_budget_is_spent_on_survivors_and_kept(factor: int, length: int, budget: float) -> None:
    for seed in range(12):
        trials = 10 + 5 * seed
        rows = table(seed, trials=trials, length=length, holes=0.05)
        levels = tuple(rungs(1, factor, length))
        goes_on = quotas(trials, levels, length, factor, budget)
        expected = textbook_halving(rows, 1, factor, maximize=False, goes_on=goes_on)
        halving = pruner("halving", factor=factor, length=length, budget=budget)
        for slots in (1, 4):
            assert Simulation(rows, halving, slots, seed).run().trained() == expected
        textbook = quotas(trials, levels, length, factor, None)
        assert all(more >= least for more, least in zip(goes_on, textbook, strict=True))
        assert sorted(goes_on, reverse=True) == list(goes_on)
        assert spent(goes_on, trials, levels, length) <= max(
            budget * trials * length, spent(textbook, trials, levels, length)
        )
        one_more = [*goes_on[:-1], goes_on[-1] + 1]
        assert (
            sorted(one_more, reverse=True) != one_more
            or spent(one_more, trials, levels, length) > budget * trials * length
        )


def spent(goes_on: Sequence[int], trials: int, levels: Sequence[int], length: int) -> int:
    """Evaluations, counted trial by trial."""
    ends = [*levels, length]
    survived = [sum(trial < quota for quota in goes_on) for trial in range(trials)]
    return sum(ends[rung] for rung in survived)


def test_the_budget_of_a_third_in_numbers() -> None:
    assert quotas(24, (1, 3), 8, 3, 1 / 3) == (10, 4)  # 24 + 10 * 2 + 4 * 5 = 64 of 192
    assert quotas(24, (1, 3), 8, 3, None) == (8, 2)
    assert quotas(24, (1, 3), None, 3, 1 / 3) == (8, 2)
    assert quotas(24, (1, 3), 4, 3, 1 / 3) == (
        8,
        2,
    )  # too short for the budget: never fewer than the textbook
    assert quotas(24, (), 1, 3, 1 / 3) == ()


def test_halving_without_a_known_length_is_the_same_where_no_rung_is_at_the_end() -> None:
    rows = table(3, length=7)
    expected = textbook_halving(rows, 1, 2, maximize=False)
    assert Simulation(rows, pruner("halving", length=None)).run().trained() == expected


def test_halving_never_waits_for_what_cannot_matter() -> None:
    """The best of the first rung goes on at once when its place is sure, and a surely beaten trial ends at once."""
    halving = pruner("halving")
    histories = {0: [(1, 0.1)], 1: [(1, 0.2)], 2: [(1, 0.3)], 3: []}
    board = Board(histories, unstarted=0)
    assert [halving.decide(t, board) for t in (0, 1, 2)] == [Decision.GO, Decision.PAUSE, Decision.STOP]


@pytest.mark.parametrize("name", PRUNERS)
@pytest.mark.parametrize("slots", [1, 4])
def test_no_trial_is_left_waiting(name: str, slots: int) -> None:
    """Failures, divergence, early ends and any timing: at the end each trial is complete, pruned or failed."""
    for seed in range(30):
        rng = random.Random(seed)
        rows = table(seed, trials=rng.randint(1, 20), length=8, holes=rng.choice([0, 0.2, 1]))
        rows = [row[: rng.choice([8, 8, 5])] for row in rows]
        failing = {t: rng.randint(1, 8) for t in range(len(rows)) if rng.random() < 0.2}
        judge = pruner(
            name,
            factor=rng.choice([2, 3, 4]),
            first=rng.choice([1, 2, None]),
            budget=rng.choice([None, 1 / 3]),
        )
        done = Simulation(rows, judge, slots, seed, failing).run()
        assert not done.paused
        assert done.ended == set(range(len(rows)))


@pytest.mark.parametrize("name", PAUSING)
@pytest.mark.parametrize("trials", [1, 2, 3, 7])
def test_a_study_ends_with_a_complete_trial(name: str, trials: int) -> None:
    for seed in range(20):
        assert Simulation(table(seed, trials=trials), pruner(name, factor=4), seed=seed).run().complete


@pytest.mark.parametrize("slots", [1, 3, 8])
def test_asha_promotes_only_the_best_of_those_seen(slots: int) -> None:
    for seed in range(15):
        rows = table(seed)
        done = Simulation(rows, pruner("asha", factor=3), slots, seed).run()
        assert done.promotions
        for trial, board in done.promotions:
            m = len(board.histories[trial])
            at_rung = [min(v for _, v in h[:m]) for h in board.histories.values() if len(h) >= m]
            better = sum(value < min(v for _, v in board.histories[trial]) for value in at_rung)
            over = not board.unstarted and board.paused | board.ended == board.histories.keys()
            assert better < len(at_rung) // 3 or (over and not board.complete)
        trained = done.trained()
        assert set(trained) <= {1, 3, 8}
        assert sum(m > 1 for m in trained) >= len(rows) // 3


def test_asha_drops_a_trial_only_when_it_could_not_be_promoted_any_more() -> None:
    asha = pruner("asha", factor=2)
    histories = {t: [(1, float(t))] for t in range(4)}
    paused = frozenset({2, 3})
    assert asha.dropped(Board(histories, paused=paused, unstarted=3)) == {3}  # 7 trials, 3 places
    assert asha.dropped(Board(histories, paused=paused, unstarted=4)) == frozenset()  # 8 trials, 4 places


@pytest.mark.parametrize("name", ["asha", "halving", "hyperband", "median"])
def test_the_first_rung_prunes_with_no_trial_complete(name: str) -> None:
    """All of a pack have done one evaluation, none is complete: about half is stopped, and the best goes on."""
    histories = {t: [(1, 1.0 + t)] for t in range(22)}
    board = Board(histories)
    decisions = {t: pruner(name).decide(t, board) for t in histories}
    stopped = [t for t, decision in decisions.items() if decision is not Decision.GO]
    assert decisions[0] is Decision.GO
    assert len(stopped) >= (3 if name == "hyperband" else 10)
    assert Decision.STOP in decisions.values()


@pytest.mark.parametrize("name", ["asha", "halving", "median"])
def test_a_diverged_trial_stops(name: str) -> None:
    histories = {0: [(1, math.nan)], 1: [(1, 0.5)], 2: [(1, 0.6)], 3: [(1, 0.7)]}
    assert pruner(name).decide(0, Board(histories, unstarted=4)) is Decision.STOP
    assert pruner(name).decide(1, Board(histories)) is Decision.GO


def test_equal_scores_are_ordered_by_number() -> None:
    done = Simulation([[0.5] * 8 for _ in range(8)], pruner("halving"), slots=4, seed=5).run()
    assert done.trained() == [8, 4, 2, 2, 1, 1, 1, 1]


def test_scores_are_best_values_so_far() -> None:
    """A trial that was best early and got worse keeps its early score."""
    rows = [[0.1, 0.9, 0.9, 0.9], [0.5, 0.4, 0.3, 0.2], [0.6, 0.6, 0.6, 0.6], [0.7] * 4]
    assert Simulation(rows, pruner("halving", length=4)).run().trained() == [4, 2, 1, 1]


def test_a_trial_that_ended_early_by_itself_holds_its_place() -> None:
    rows = [[0.1], [0.2] * 8, [0.3] * 8, [0.4] * 8]
    assert Simulation(rows, pruner("halving")).run().trained() == [1, 2, 1, 1]


def test_min_resource_defaults_to_an_eighth_of_a_trial() -> None:
    for length, first in [(3, 1), (8, 1), (16, 2), (30, 3)]:
        rows = table(1, length=length)
        done = Simulation(rows, pruner("halving", first=None, length=length)).run()
        assert min(done.trained()) == first


def test_hyperband_deals_brackets_in_proportion_and_gives_each_its_first_rung() -> None:
    hyperband = pruner("hyperband")
    brackets = [hyperband.bracket(t) for t in range(22)]  # type: ignore[attr-defined]
    assert [brackets.count(s) for s in (3, 2, 1, 0)] == [8, 6, 4, 4]  # ceil(4 / (s + 1) * 2**s)
    assert brackets == [hyperband.bracket(t) for t in range(22, 44)]  # type: ignore[attr-defined]
    done = Simulation(table(0, trials=22), hyperband, slots=4).run()
    for bracket, first in [(3, 1), (2, 2), (1, 4), (0, 8)]:
        mine = [m for m, b in zip(done.trained(), brackets, strict=True) if b == bracket]
        assert min(mine) == first
        assert max(mine) == 8


def test_median_compares_at_equal_evaluation_with_running_trials_too() -> None:
    histories = {0: [(1, 0.5), (2, 0.1)], 1: [(1, 0.6)], 2: [(1, 0.7)], 3: [(1, 0.61)]}
    board = Board(histories)
    decisions = [pruner("median").decide(t, board) for t in range(4)]
    assert decisions == [Decision.GO, Decision.GO, Decision.STOP, Decision.STOP]
    assert pruner("median", first=2).decide(2, board) is Decision.GO


def test_median_needs_two_others() -> None:
    assert pruner("median").decide(1, Board({0: [(1, 0.1)], 1: [(1, 0.9)]})) is Decision.GO


@pytest.mark.parametrize("name", ["none", "median", "wilcoxon", *PAUSING])
def test_a_trial_paused_by_another_pruner_is_not_forgotten(name: str) -> None:
    judge = pruner(name, first=4)
    assert judge.promote(Board({0: [(1, 0.3)], 1: [(1, 0.2)]}, paused=frozenset({0, 1}))) == 0


@pytest.mark.parametrize("seed", range(20))
def test_wilcoxon_p_is_scipys_exact_one(seed: int) -> None:
    rng = random.Random(seed)
    differences = [rng.gauss(0.3, 1) for _ in range(rng.randint(1, 12))]
    assert p_worse(differences) == pytest.approx(wilcoxon(differences, alternative="greater", method="exact").pvalue)


def test_wilcoxon_p_with_ties_and_zeros_is_that_of_all_sign_patterns() -> None:
    differences = [1.0, 1.0, -1.0, 2.0, 0.0, 3.0]
    ranks = [2.0, 2.0, 2.0, 4.0, 5.0]  # of the sizes 1, 1, 1, 2, 3
    sums = [sum(r for r, s in zip(ranks, signs, strict=True) if s) for signs in itertools.product((0, 1), repeat=5)]
    assert p_worse(differences) == pytest.approx(sum(s >= 13 for s in sums) / 32)
    assert p_worse([0.0, 0.0]) == 1


def test_wilcoxon_stops_what_is_worse_on_every_seed() -> None:
    seeds = [0.1, 0.4, 0.2, 0.9]  # seeds differ far more than the trials do
    best = [(i + 1, v) for i, v in enumerate(seeds)]
    worse = [(i + 1, v + 0.01 * (i + 1)) for i, v in enumerate(seeds)]
    mixed = [(i + 1, v + (-1) ** i * 0.01) for i, v in enumerate(seeds)]
    judge = pruner("wilcoxon")
    assert judge.decide(1, Board({0: best, 1: worse})) is Decision.STOP
    assert judge.decide(1, Board({0: best, 1: worse[:3]})) is Decision.GO  # p = 1/8
    assert judge.decide(1, Board({0: best, 1: mixed})) is Decision.GO
    assert judge.decide(0, Board({0: best, 1: worse})) is Decision.GO
    assert judge.decide(1, Board({0: best[:2], 1: worse})) is Decision.GO  # the rival lacks these seeds
    assert judge.decide(1, Board({0: best, 1: [(1, math.nan)]})) is Decision.STOP


def test_make_pruner_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="pruner must be one of none, asha"):
        pruner("hyperbolic")
    with pytest.raises(ValueError, match="hyperband needs max_resource"):
        pruner("hyperband", length=None)
    with pytest.raises(ValueError, match="direction must be minimize or maximize, got up"):
        make_pruner("none", reduction_factor=2, min_resource=1, direction="up")
