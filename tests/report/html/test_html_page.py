from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emotion_sweeps.report.findings import Analysis, Finding, Importance, Importances, MarginalMean, Marginals
from emotion_sweeps.report.html import embed
from emotion_sweeps.report.html.page import render
from emotion_sweeps.report.leaderboard import make_board
from emotion_sweeps.report.results import read_runs

Make = Callable[..., dict[str, Any]]
Write = Callable[..., Path]
HOSTILE = [
    "</script><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    "\"><svg onload='window.pwned=1'>",
    "a|b`c`",
    "=cmd|' /C calc'!A0",
    "two\nlines {{ 7 * 7 }} %{x}",
    "😀 $\\alpha$ &lt;b&gt;",
]


class Tags(html.parser.HTMLParser):
    """Which elements a page has, with the text of its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self._in_script = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            attrs, before = self.scripts[-1]
            self.scripts[-1] = (attrs, before + data)
        else:
            self.text += data


def page_of(folder: Path, analysis: Analysis | None = None, out: Path | None = None) -> str:
    runs = read_runs([folder])
    return render(make_board(runs.rows, problems=runs.problems), [folder], out or folder, "run it again", analysis)


def grid(make_result: Make, names: list[str]) -> list[dict[str, Any]]:
    return [
        make_result(name, loss=0.3 + i / 100, lora={"r": 8 * (i + 1)}, config={"lora": {"r": 8 * (i + 1)}})
        for i, name in enumerate(names)
    ]


def test_nothing_is_fetched_and_only_its_own_scripts_may_run(make_result: Make, write_runs: Write) -> None:
    page = page_of(write_runs(*grid(make_result, ["a", "b", "c", "d"])))
    tags = Tags(page)
    assert not [attrs for tag, attrs in tags.seen if tag in ("img", "iframe", "object", "embed", "base")]
    assert not [attrs for tag, attrs in tags.seen if "src" in attrs]
    assert [attrs["href"] for tag, attrs in tags.seen if tag == "link"] == ["data:,"]
    links = [attrs["href"] or "" for tag, attrs in tags.seen if tag == "a"]
    assert links and all(link.startswith(("#", "./", "../")) for link in links)
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style and "@import" not in style

    (policy,) = [a["content"] or "" for t, a in tags.seen if a.get("http-equiv") == "Content-Security-Policy"]
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    running = [text for attrs, text in tags.scripts if "type" not in attrs] + [embed.plotly_js()]
    assert allowed == [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in running]


def test_every_plot_has_a_box_and_data_and_every_box_a_plot(make_result: Make, write_runs: Write) -> None:
    results = grid(make_result, ["a", "b", "c", "d"])
    results[0]["per_label"] = [{"label": "joy", "support": 4, "precision": 0.5, "recall": 0.5, "f1": 0.5}]
    tags = Tags(page_of(write_runs(*results)))
    boxes = [attrs["id"] for tag, attrs in tags.seen if tag == "div" and attrs.get("class") == "plot"]
    (data,) = [json.loads(text) for attrs, text in tags.scripts if attrs.get("id") == "plot-data"]
    assert sorted(boxes) == sorted(plot["key"] for plot in data) == ["labels", "parallel", "slice-0"]


def test_hostile_texts_stay_texts(make_result: Make, make_failure: Make, write_runs: Write) -> None:
    results = grid(make_result, HOSTILE)
    for text, result in zip(HOSTILE, results, strict=True):
        result |= {"scheduler": text, "model": text, "augment": text}
        result["data"] |= {"name": text, "label_names": HOSTILE}
        result["lora"] |= {"target_modules": [text], text: text}
        result["config"] |= {"augment": {text: text}}
        result["per_label"] = [{"label": t, "support": 1, "precision": 1, "recall": 1, "f1": 1} for t in HOSTILE]
    finding = Finding(HOSTILE[0], HOSTILE[0], "effect")
    analysis = Analysis(
        *("loss", True, 7, 7, None, HOSTILE[1], (finding,)),
        marginals=(Marginals(HOSTILE[0], (MarginalMean(HOSTILE[1], 0.3, None, None, 1),), True),),
        importances=Importances("fANOVA", HOSTILE[0], (Importance(HOSTILE[0], 0.5), Importance("x", float("nan")))),
        conclusion=(HOSTILE[0],),
        caveats=(HOSTILE[0],),
    )
    folder = write_runs(*results, make_failure(HOSTILE[0], "\n".join(HOSTILE)))
    tags, harmless = (
        Tags(page_of(folder, analysis)),
        Tags(page_of(write_runs(*grid(make_result, ["a", "b"]), sweep="b"))),
    )
    assert len(tags.scripts) == len(harmless.scripts)
    assert not {tag for tag, _ in tags.seen} & {"img", "svg"}
    assert not [attrs for _, attrs in tags.seen if any(name.startswith("on") for name in attrs)]
    for text in HOSTILE[:4]:
        assert text in tags.text
    assert "{{ 7 * 7 }}" in tags.text and "two\nlines" not in tags.text


def test_what_the_study_teaches_is_in_the_page(make_result: Make, write_runs: Write) -> None:
    means = (MarginalMean("16", 0.3, 0.29, 0.31, 2), MarginalMean("32", 0.2, None, None, 2))
    analysis = Analysis(
        *("loss", True, 4, 4, None, "nothing says how large the noise is"),
        findings=(Finding("rank", "32 beats 16 by 0.02", "effect"), Finding("alpha", "moves with rank", "confounded")),
        marginals=(Marginals("rank", means, True),),
        importances=Importances("fANOVA", "on 4 trials", (Importance("rank", 0.8), Importance("alpha", 0.2))),
        conclusion=("Use 32.",),
        caveats=("Four runs are few.",),
    )
    tags = Tags(page_of(write_runs(*grid(make_result, ["a", "b"])), analysis))
    for said in ("Use 32.", "32 beats 16 by 0.02", "moves with rank", "Four runs are few.", "on 4 trials"):
        assert said in tags.text
    (data,) = [json.loads(text) for attrs, text in tags.scripts if attrs.get("id") == "plot-data"]
    bars = next(plot for plot in data if plot["key"] == "importances")
    assert bars["data"][0]["x"] == [0.2, 0.8], "the most important is drawn on top"
    assert next(plot for plot in data if plot["key"] == "marginal-0")["data"][0]["y"] == [0.3, 0.2]


@pytest.mark.parametrize("finished", [0, 1])
def test_failures_alone_make_a_page_without_plots(
    make_result: Make, make_failure: Make, write_runs: Write, finished: int
) -> None:
    page = page_of(write_runs(make_failure("x", "no disk"), *[make_result("only")] * finished))
    assert "RuntimeError: no disk" in page
    assert ("No trial finished" in page) is not bool(finished)
    assert len(page) < 100_000, "plotly.js is not embedded for nothing"


def test_missing_and_torn_runs_are_named(make_result: Make, write_runs: Write) -> None:
    folder = write_runs(make_result("whole"), make_result("torn"))
    torn = folder / "1" / "result.json"
    torn.write_bytes(torn.read_bytes()[:80])
    page = page_of(folder)
    assert "not whole JSON" in page and "whole" in page


def test_the_same_runs_make_the_same_page(make_result: Make, write_runs: Write) -> None:
    folder = write_runs(*grid(make_result, ["a", "b", "c"]))
    assert page_of(folder) == page_of(folder)
