"""The analysis as markdown, one list of lines a section; every foreign text is escaped where it enters."""

from __future__ import annotations

from collections.abc import Sequence

from emotion_sweeps.report.findings import Across, Analysis, FamilyRow, Finding, Marginals, Recommendation, Winner
from emotion_sweeps.report.ranking import metric_text
from emotion_sweeps.report.texts import markdown as escaped
from emotion_sweeps.report.wording import listed

_NONE = "–"
_LONG = 1500
_MOST = 40  # bullets of a section


def analysis_sections(analysis: Analysis) -> list[list[str]]:
    """Everything below the board; sections with nothing to say are left out."""
    made = [
        _conclusion(analysis),
        _winner(analysis.winner),
        _recommendation(analysis.recommendation),
        _findings(analysis),
        _marginals(analysis),
        _importances(analysis),
        _across(analysis.across),
        _training(analysis),
    ]
    return [lines for lines in made if lines]


def _bullets(heading: str, items: Sequence[str], before: Sequence[str] = ()) -> list[str]:
    if not items and not before:
        return []
    lead = [part for text in before for part in (escaped(text, _LONG), "")]
    if not items:
        return [heading, "", *lead[:-1]]
    shown = [f"- {escaped(item, _LONG)}" for item in items[:_MOST]]
    more = [f"- ... and {len(items) - _MOST:,} more"] if len(items) > _MOST else []
    return [heading, "", *lead, *shown, *more]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    return lines + ["| " + " | ".join(escaped(cell) for cell in row) + " |" for row in rows]


def _conclusion(analysis: Analysis) -> list[str]:
    return _bullets("## Conclusion", analysis.conclusion)


def _winner(winner: Winner | None) -> list[str]:
    if winner is None:
        return []
    settings = ", ".join(f"{name} {value}" for name, value in winner.settings)
    return _bullets("## The winner", winner.lines, [f"{winner.name}: {settings}."])


def _recommendation(recommendation: Recommendation | None) -> list[str]:
    if recommendation is None:
        return []
    alternative = recommendation.alternative
    if alternative is None:
        return _bullets("## Recommended", [recommendation.statement, recommendation.no_alternative])
    lines = _bullets("## Recommended", [recommendation.statement, alternative.statement])
    if alternative.overrides:
        lines.append(f"- {escaped(f'To train it, add to the command below: {alternative.overrides}', _LONG)}")
    return lines


def _findings(analysis: Analysis) -> list[str]:
    if analysis.n_configurations < 2:
        return []
    strong = analysis.of_kind("effect", "interaction", "tie")
    lines = _bullets("## Findings", [_said(f) for f in strong], [analysis.noise_text])
    cannot = [f for f in analysis.of_kind("confounded", "unknown") if not _is_constant(f)]
    constant = [f.factor for f in analysis.of_kind("unknown") if _is_constant(f)]
    items = [_said(f) for f in cannot]
    if constant:
        items.append(f"{_fixed(analysis)} the same in every run, so nothing is known about what a change would do.")
    if items:
        lines += ["", *_bullets("### What these runs cannot tell", items)]
    if analysis.caveats:
        lines += ["", *_bullets("### Limits", analysis.caveats)]
    return lines


def _is_constant(finding: Finding) -> bool:
    return finding.kind == "unknown" and finding.better is not None and finding.worse is None


def _fixed(analysis: Analysis) -> str:
    fixed = [f"{f.factor} ({f.better})" for f in analysis.of_kind("unknown") if _is_constant(f)]
    return f"{listed(fixed)} {'were' if len(fixed) > 1 else 'was'}"


def _said(finding: Finding) -> str:
    return f"{finding.statement} ({finding.strength})" if finding.strength else finding.statement


def _marginals(analysis: Analysis) -> list[str]:
    if not analysis.marginals:
        return []
    better = "lower" if analysis.minimize else "higher"
    heads = ["setting", "level", f"mean {metric_text(analysis.metric)}", "95 % interval", "runs", "what it is"]
    rows = [row for marginals in analysis.marginals for row in _marginal_rows(marginals)]
    return ["## By setting", "", f"Means over everything else; {better} is better.", "", *_table(heads, rows)]


def _marginal_rows(marginals: Marginals) -> list[list[str]]:
    kind = "adjusted for the other settings" if marginals.adjusted else "plain average"
    return [
        [
            marginals.factor,
            one.level,
            f"{one.mean:.4f}",
            _NONE if one.low is None or one.high is None else f"{one.low:.4f} to {one.high:.4f}",
            f"{one.n:,}",
            kind,
        ]
        for one in marginals.means
    ]


def _importances(analysis: Analysis) -> list[str]:
    found = analysis.importances
    if not found.shares:
        return _bullets("## Importances", [], [found.note]) if found.note and analysis.n_configurations > 1 else []
    rows = [[one.factor, f"{one.share:.0%}"] for one in found.shares]
    note = f"{found.note} A share says how much a setting moved the result, not which way, and holds noise too."
    return ["## Importances", "", escaped(note, _LONG), "", *_table(["setting", "share of variance"], rows)]


def _across(found: Across) -> list[str]:
    if not found.rows:
        return _bullets("## Across families", found.lines)
    heads = ["family", "best configuration", "macro-F1 (test)", "95 % interval", "macro-F1 (validation)", "trainable",
             "minutes", "front", "notes"]  # fmt: skip
    lines = ["## Across families", "", *_table(heads, [_family(row) for row in found.rows])]
    return lines + ["", *(f"- {escaped(line, _LONG)}" for line in found.lines)] if found.lines else lines


def _family(row: FamilyRow) -> list[str]:
    return [
        row.family,
        row.winner or _NONE,
        _NONE if row.test_macro_f1 is None else f"{row.test_macro_f1:.3f}",
        _NONE if row.low is None or row.high is None else f"{row.low:.3f} to {row.high:.3f}",
        _NONE if row.validation_macro_f1 is None else f"{row.validation_macro_f1:.3f}",
        _NONE if row.trainable_parameters is None else f"{row.trainable_parameters:,}",
        _NONE if row.minutes is None else f"{row.minutes:.1f}",
        "yes" if row.on_front else "",
        row.note,
    ]


def _training(analysis: Analysis) -> list[str]:
    return _bullets("## Training", analysis.training.lines) if analysis.training else []
