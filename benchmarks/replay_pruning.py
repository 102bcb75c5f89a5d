"""What each pruner would have found and spent on a recording of real curves, in ten orders of its cells.

    python benchmarks/replay_pruning.py tests/sweeps/recordings/minilm_demo.json --metric loss --slots 1
    python benchmarks/replay_pruning.py --synthetic 100       # made-up curves that cross, a new grid each time

`won` counts the orders whose best complete trial is the full grid's best cell; `share` is the mean share of the full
grid's optimizer steps that were trained, with the largest beside it; `regret` is how far the best found is from the
grid's best score, at worst. `default` is what `sweep.pruner=halving` does when nothing else is said. Takes seconds.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.table import Table

from emotion_sweeps.config.schema import LOWER_IS_BETTER, SweepConf
from emotion_sweeps.sweeps.pruning import BUDGET, Pruner, make_pruner
from emotion_sweeps.sweeps.replay import Curve, Replay, load_recording, replay, score

DEFAULT_FACTOR = SweepConf().reduction_factor
VARIANTS: dict[str, tuple[str, int, float | None]] = {  # label: pruner, reduction factor, budget
    "none": ("none", 2, None),
    "halving (default)": ("halving", DEFAULT_FACTOR, BUDGET),
    "halving, factor 2": ("halving", 2, BUDGET),
    "halving, factor 4": ("halving", 4, BUDGET),
    "halving, factor 3, no budget": ("halving", 3, None),
    "asha, factor 2": ("asha", 2, None),
    "asha, factor 3": ("asha", 3, None),
    "asha, factor 4": ("asha", 4, None),
    "hyperband, factor 3": ("hyperband", 3, None),
    "median": ("median", 2, None),
}
Study = tuple[list[Curve], int]  # curves, and the seed of their order


def pruner_of(label: str, direction: str, length: int) -> Pruner:
    """The pruner of a row."""
    name, factor, budget = VARIANTS[label]
    return make_pruner(
        name,
        reduction_factor=factor,
        min_resource=SweepConf().min_resource,
        direction=direction,
        max_resource=length,
        budget=budget,
    )


def power_laws(seed: int, cells: int = 24, evaluations: int = 8) -> list[Curve]:
    """Losses that fall at different rates to different ends and cross, with a little noise."""
    rng, steps = random.Random(seed), tuple(range(10, 10 * evaluations + 1, 10))
    curves = []
    for cell in range(cells):
        end, start, rate = rng.gauss(0.4, 0.02), rng.uniform(0.1, 0.3), rng.lognormvariate(0, 0.4)
        values = (end + start * (1 + e) ** -rate + rng.gauss(0, 0.002) for e in range(1, evaluations + 1))
        curves.append(Curve(f"cell{cell}", steps, tuple(values)))
    return curves


def regret(curves: Sequence[Curve], outcome: Replay, *, maximize: bool) -> float:
    """How far the best complete cell is from the grid's best."""
    scores = [score(curve.values, maximize=maximize) for curve in curves]
    return float("inf") if outcome.best is None else scores[outcome.best] - min(scores)


def table_of(title: str, studies: Sequence[Study], direction: str, slots: int) -> Table:
    """One row a pruner over all studies."""
    table = Table("pruner", title=title)
    for column in ("won", "share", "largest share", "worst regret"):
        table.add_column(column, justify="right")
    for label in VARIANTS:
        outcomes = []
        for curves, seed in studies:
            judge = pruner_of(label, direction, max(len(curve.values) for curve in curves))
            outcomes.append((curves, replay(curves, judge, direction=direction, order_seed=seed, slots=slots)))
        shares = [outcome.share for _, outcome in outcomes]
        worst = max(regret(curves, outcome, maximize=direction == "maximize") for curves, outcome in outcomes)
        won = f"{sum(outcome.reached for _, outcome in outcomes)} of {len(studies)}"
        table.add_row(label, won, f"{mean(shares):.1%}", f"{max(shares):.1%}", f"{worst:.4f}")
    return table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path, nargs="?")
    parser.add_argument("--synthetic", type=int, metavar="STUDIES", help="made-up curves instead of a recording")
    parser.add_argument("--metric", default="loss")
    parser.add_argument("--orders", type=int, default=10)
    parser.add_argument("--slots", type=int, default=1)
    args = parser.parse_args()
    if (args.recording is None) == (args.synthetic is None):
        parser.error("give a recording or --synthetic")
    direction = "minimize" if args.metric in LOWER_IS_BETTER else "maximize"
    if args.synthetic:
        studies = [(power_laws(seed), seed) for seed in range(args.synthetic)]
        title = f"{args.synthetic} made-up grids of 24 cells x 8 evaluations"
    else:
        curves = load_recording(args.recording, args.metric)
        studies = [(curves, seed) for seed in range(args.orders)]
        title = f"{args.recording.name}: {len(curves)} cells x {len(curves[0].values)} evaluations, {args.metric}"
    Console().print(table_of(f"{title}, {args.slots} slots", studies, direction, args.slots))


if __name__ == "__main__":
    main()
