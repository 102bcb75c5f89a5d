"""What the study teaches, drawn: the share that each setting has in the differences, and each level's marginal mean.

Both come from the analysis of the study (`emotion_sweeps.report.findings`); nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from emotion_sweeps.report.findings import Analysis, Importances, Kind, Marginals
from emotion_sweeps.report.html.figures import Plot, figure, shown
from emotion_sweeps.report.ranking import metric_text
from emotion_sweeps.report.texts import plain

_KINDS: dict[str, tuple[Kind, ...]] = {
    "Found": ("effect", "interaction"),
    "No difference seen": ("tie",),
    "Cannot be told apart": ("confounded",),
    "Unknown": ("unknown",),
}


@dataclass(frozen=True)
class Group:
    """Statements of one kind."""

    title: str
    statements: list[str]


@dataclass(frozen=True)
class Effects:
    """What the study teaches, in words and plots."""

    conclusion: list[str]
    groups: list[Group]
    importances: Plot | None
    importances_note: str
    marginals: list[Plot]
    noise: str

    @property
    def plots(self) -> list[Plot]:
        """Every plot of the section."""
        return [*([self.importances] if self.importances else []), *self.marginals]


def make_effects(analysis: Analysis) -> Effects:
    """Statements by how much they carry, and the plots beside them."""
    groups = [
        Group(title, [plain(finding.statement, 1000) for finding in analysis.of_kind(*kinds)])
        for title, kinds in _KINDS.items()
    ]
    importances = importances_plot(analysis.importances)
    return Effects(
        conclusion=[plain(line, 1000) for line in analysis.conclusion],
        groups=[group for group in groups if group.statements],
        importances=importances,
        importances_note=plain(analysis.importances.note, 500),
        marginals=marginal_plots(analysis.marginals, analysis.metric),
        noise=plain(analysis.noise_text, 500),
    )


def importances_plot(importances: Importances) -> Plot | None:
    """One bar a setting, the most important on top; None where nothing is known."""
    shares = sorted(importances.shares, key=lambda one: one.share)
    if not shares:
        return None
    names = [shown(one.factor, 32) for one in shares]
    bars = go.Bar(
        x=[one.share for one in shares],
        y=list(range(len(shares))),
        orientation="h",
        marker={"color": "var(--accent)"},
        width=0.6,
        text=[f"{one.share:.0%}" for one in shares],
        textposition="outside",
        cliponaxis=False,
        hovertext=names,
        hovertemplate="%{hovertext}: %{x:.1%}<extra></extra>",
    )
    bare = {"showgrid": False, "fixedrange": True, "ticks": ""}
    made = figure(
        [bars],
        height=50 + 30 * len(shares),
        xaxis={**bare, "showticklabels": False, "showline": False, "range": [0, 1.15 * shares[-1].share or 1]},
        yaxis={**bare, "tickvals": list(range(len(shares))), "ticktext": names},
    )
    return Plot("importances", made, "Bar plot: the share of each setting in the differences.", "Importances")


def marginal_plots(marginals: Sequence[Marginals], metric: str) -> list[Plot]:
    """Each level's mean with its interval, one plot a setting."""
    return [_marginal(index, one, metric) for index, one in enumerate(marginals) if one.means]


def _marginal(index: int, marginals: Marginals, metric: str) -> Plot:
    means = marginals.means
    dots = go.Scatter(
        x=list(range(len(means))),
        y=[one.mean for one in means],
        mode="markers",
        marker={"size": 9, "color": "var(--accent)"},
        error_y={
            "array": [None if one.high is None else one.high - one.mean for one in means],
            "arrayminus": [None if one.low is None else one.mean - one.low for one in means],
            "color": "var(--accent)",
            "thickness": 1.5,
            "width": 5,
        },
        text=[f"{shown(one.level)}: {one.n} run{'s' * (one.n != 1)}" for one in means],
        hovertemplate="%{text}<br>%{y:.4f}<extra></extra>",
    )
    made = figure(
        [dots],
        height=230,
        xaxis={
            "tickvals": list(range(len(means))),
            "ticktext": [shown(one.level, 26).replace(" to ", "<br>to ") for one in means],
            "range": [-0.6, len(means) - 0.4],
        },
        yaxis={"title": {"text": metric_text(metric)}},
    )
    return Plot(f"marginal-{index}", made, f"Means with intervals by {marginals.factor}.", marginals.factor)
