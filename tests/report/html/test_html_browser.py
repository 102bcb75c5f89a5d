"""The page in a real browser: headless Chromium, opened from disk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emotion_sweeps.report.html.page import render
from emotion_sweeps.report.leaderboard import make_board
from emotion_sweeps.report.results import read_runs
from emotion_sweeps.report.texts import plain

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (pip install selenium)")
CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium (apt-get install chromium chromium-driver)"),
]
Make = Callable[..., dict[str, Any]]
Write = Callable[..., Path]
Open = Callable[..., Any]

HOSTILE = [
    "</script><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    '<a href="https://evil.example/?x">click</a><b>bold</b><br>',
    "a|b`c` %{x} {{7*7}} $\\alpha$",
    "=cmd|' /C calc'!A0\n😀",
]
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"),
    *("--disable-component-update", "--no-first-run", "--window-size=1280,900"),
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Writes the page of some run folders, opens it from disk and waits until plotly.js is there."""

    def open_(folder: Path, *, width: int = 1280, dark: bool = False) -> Any:
        runs = read_runs([folder])
        page = tmp_path / "out" / "leaderboard.html"
        page.parent.mkdir(exist_ok=True)
        page.write_text(render(make_board(runs.rows), [folder], page.parent, "run it"), encoding="utf-8", newline="\n")
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        browser.get("about:blank")
        browser.get_log("browser"), browser.get_log("performance")  # whatever was before
        browser.get(page.as_uri())
        wait_until(browser, "performance.getEntriesByName('plots-ready').length > 0")
        return browser

    yield open_


def wait_until(browser: Any, condition: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 60, poll_frequency=0.05).until(lambda driver: driver.execute_script(f"return {condition}"))


def see_everything(browser: Any) -> None:
    """Scroll through, so that every plot is drawn."""
    browser.execute_script(
        "document.querySelectorAll('.plot').forEach((box) => box.scrollIntoView({behavior: 'instant'}))"
    )
    boxes = browser.execute_script("return [...document.querySelectorAll('.plot')].map((box) => box.id)")
    for box in boxes:
        browser.execute_script("document.getElementById(arguments[0]).scrollIntoView({behavior: 'instant'})", box)
        wait_until(browser, f"document.getElementById({json.dumps(box)}).querySelector('svg.main-svg') !== null")


def study(make_result: Make, write_runs: Write, names: list[str], **changes: Any) -> Path:
    """Trials of falling merit with curves, labels and two settings that vary."""
    labels = changes.pop("labels", ["joy", "fear"])
    results = [
        make_result(
            name,
            loss=0.3 + i / 100,
            macro_f1=0.6 - (i * 7 % 11) / 100,
            lora={"r": 8 * (i % 4 + 1)},
            scheduler=changes.get("scheduler", ["linear", "cosine"][i % 2]),
            config={"lora": {"r": 8 * (i % 4 + 1)}, "training": {"epochs": i}},
            per_label=[{"label": x, "support": 5, "precision": 0.5, "recall": 0.25, "f1": 0.33} for x in labels],
            data={"label_names": labels},
            status=changes.get("status", "complete"),
        )
        for i, name in enumerate(names)
    ]
    results.append(make_result("stopped", status="pruned", loss=0.9))
    results.append({"schema": 1, "name": "broke", "status": "failed", "error": {"class": "E", "message": "no disk"}})
    folder = write_runs(*results)
    for number in range(len(names)):
        records = [
            {"kind": kind, "split": "validation", "step": s, "epoch": s / 10, "loss": 1 / s, "macro_f1": 1 - 1 / s}
            for s in range(1, 40)
            for kind in ("train", "eval")
        ]
        text = "\n".join(map(json.dumps, records))
        (folder / str(number) / "metrics.jsonl").write_text(text, encoding="utf-8")
    (folder / "0" / "predictions").mkdir()
    predictions = [json.dumps({"gold": [labels[i % 2]], "predicted": [labels[i % 3 % 2]]}) for i in range(30)]
    (folder / "0" / "predictions" / "validation.jsonl").write_text("\n".join(predictions), encoding="utf-8")
    return folder


def rows(browser: Any, column: int = 1) -> list[str]:
    """A column's texts in the rows that are shown."""
    script = "return [...document.querySelectorAll('#board tbody tr')].filter((r) => r.offsetParent)"
    texts = browser.execute_script(f"{script}.map((r) => r.cells[{column}].textContent)")
    return [str(text) for text in texts]


def head(browser: Any, heading: str) -> Any:
    return browser.execute_script(
        "return [...document.querySelectorAll('#board th button')].find((b) => b.textContent === arguments[0])", heading
    )


def names(count: int) -> list[str]:
    return [f"exp{i:03d}" for i in range(count)]


def test_it_draws_everything_without_a_word_or_a_request(make_result: Make, write_runs: Write, open_page: Open) -> None:
    browser = open_page(study(make_result, write_runs, names(30)))
    see_everything(browser)
    boxes = browser.execute_script("return [...document.querySelectorAll('.plot')].map((box) => box.id)")
    assert {"curves-loss", "curves-f1", "parallel", "slice-0", "labels", "confusion"} <= set(boxes)
    assert browser.execute_script("return document.querySelectorAll('#curves-f1 .scatterlayer .trace').length") == 8
    assert browser.get_log("browser") == []
    requests = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [r["params"]["request"]["url"] for r in requests if r["method"] == "Network.requestWillBeSent"]
    assert [url for url in urls if not url.startswith(("data:", "blob:"))] == [browser.current_url]


def test_a_selector_changes_which_curves_are_drawn(make_result: Make, write_runs: Write, open_page: Open) -> None:
    browser = open_page(study(make_result, write_runs, names(30)))
    see_everything(browser)
    browser.execute_script(
        "const s = document.querySelector('select[name=curves]'); s.value = '1'; s.dispatchEvent(new Event('change'))"
    )
    wait_until(browser, "document.querySelectorAll('#curves-f1 .scatterlayer .trace').length === 24")


def test_headings_sort_by_keyboard_in_both_directions(make_result: Make, write_runs: Write, open_page: Open) -> None:
    from selenium.webdriver.common.keys import Keys

    browser = open_page(study(make_result, write_runs, names(12)))
    assert rows(browser)[:12] == names(12)
    by_f1 = head(browser, "macro-F1")
    by_f1.send_keys(Keys.ENTER)
    column = 3
    scores = [float(text) for text in rows(browser, column)[:-1]]
    assert scores == sorted(scores, reverse=True) and len(scores) == 13
    assert rows(browser, column)[-1] == "–", "what is missing stands last"
    by_f1.send_keys(Keys.SPACE)
    scores = [float(text) for text in rows(browser, column)[:-1]]
    assert scores == sorted(scores) and rows(browser, column)[-1] == "–"
    state = "return [...document.querySelectorAll('#board th')].map((h) => h.getAttribute('aria-sort'))"
    assert [s for s in browser.execute_script(state) if s] == ["ascending"]
    head(browser, "experiment").send_keys(Keys.ENTER)
    assert rows(browser) == sorted(rows(browser))
    head(browser, "rank").send_keys(Keys.ENTER)
    assert rows(browser)[:12] == names(12)


def test_text_and_status_filter_the_rows(make_result: Make, write_runs: Write, open_page: Open) -> None:
    browser = open_page(study(make_result, write_runs, names(12)))
    field = browser.find_element("id", "filter")
    field.send_keys("EXP00 cosine")
    assert rows(browser) == ["exp001", "exp003", "exp005", "exp007", "exp009"]
    assert browser.find_element("id", "count").text == "5 of 5 (of 14)"
    field.send_keys(" nowhere")
    assert rows(browser) == [] and browser.find_element("id", "count").text == "nothing matches"
    browser.execute_script("arguments[0].value = ''; arguments[0].dispatchEvent(new Event('input'))", field)
    for status, expected in (("failed", ["broke"]), ("pruned", ["stopped"]), ("complete", names(12))):
        browser.execute_script(
            "const s = document.getElementById('status'); s.value = arguments[0]; s.dispatchEvent(new Event('change'))",
            status,
        )
        assert rows(browser) == expected
    assert "no disk" in browser.page_source


def test_a_long_table_shows_more_on_request(make_result: Make, write_runs: Write, open_page: Open) -> None:
    browser = open_page(study(make_result, write_runs, names(140)))
    assert len(rows(browser)) == 25
    browser.find_element("id", "more").click()
    assert len(rows(browser)) == 125
    browser.find_element("id", "all").click()
    assert len(rows(browser)) == 142 and not browser.find_element("id", "all").is_displayed()


def test_a_name_links_to_its_run_folder(make_result: Make, write_runs: Write, open_page: Open) -> None:
    folder = study(make_result, write_runs, names(3))
    browser = open_page(folder)
    link = browser.execute_script("return document.querySelector('#board a').href")
    assert link == (folder / "0").as_uri() + "/"


def test_hostile_texts_are_shown_and_never_run(make_result: Make, write_runs: Write, open_page: Open) -> None:
    folder = study(make_result, write_runs, HOSTILE, labels=[HOSTILE[0], HOSTILE[2]], scheduler=HOSTILE[1])
    browser = open_page(folder)
    see_everything(browser)
    assert rows(browser)[:5] == [plain(name) for name in HOSTILE]
    assert browser.execute_script("return window.pwned") is None
    assert browser.execute_script("return document.querySelectorAll('.plot a, main img').length") == 0
    for box in ("curves-loss", "parallel", "slice-0", "labels", "confusion"):
        hovered = browser.execute_script(
            "const box = document.getElementById(arguments[0]); const heat = box.data[0].type === 'heatmap';"
            "const curve = box.id === 'slice-0' ? 0 : box.data.length - 1;"  # the winner is drawn last
            "Plotly.Fx.hover(box, heat ? {xval: 0, yval: 0} : [{curveNumber: curve, pointNumber: 0}]);"
            "return [box.querySelector('.hoverlayer').textContent, box.querySelectorAll('a').length]",
            box,
        )
        assert "<" in hovered[0] and hovered[1] == 0, box
    assert browser.execute_script("return window.pwned") is None
    assert browser.get_log("browser") == []


def test_what_is_injected_later_neither_runs_nor_reaches_anything(
    make_result: Make, write_runs: Write, open_page: Open
) -> None:
    browser = open_page(study(make_result, write_runs, names(3)))
    browser.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.pwned = 1'; document.body.append(s);"
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.pwned = 1\">')"
    )
    blocked = browser.execute_async_script(
        "const done = arguments[0]; fetch('data:text/plain,x').then(() => done('reached'), () => done('blocked'))"
    )
    assert blocked == "blocked" and browser.execute_script("return window.pwned") is None
    browser.get_log("browser")


@pytest.mark.parametrize("width", [320, 390, 768])
def test_a_narrow_window_never_scrolls_sideways(
    make_result: Make, write_runs: Write, open_page: Open, width: int
) -> None:
    folder = study(make_result, write_runs, ["a_very_long_name_" * 9, "x" * 150, *names(20)])
    browser = open_page(folder, width=width)
    see_everything(browser)
    wide, inner = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide <= inner == width
    assert len(rows(browser)) == 24


def test_the_dark_look_follows_the_system(make_result: Make, write_runs: Write, open_page: Open) -> None:
    folder = study(make_result, write_runs, names(4))
    grounds, inks = [], []
    for dark in (False, True):
        browser = open_page(folder, dark=dark)
        see_everything(browser)
        script = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
        grounds.append(sum(browser.execute_script(script)))
        inks.append(browser.execute_script("return document.getElementById('curves-loss').layout.font.color"))
    assert grounds[0] > 600 > 150 > grounds[1]
    assert inks[0] != inks[1]


def test_every_plot_is_on_paper(make_result: Make, write_runs: Write, open_page: Open) -> None:
    browser = open_page(study(make_result, write_runs, names(30)), dark=True)
    drawn = "[...document.querySelectorAll('.plot')].filter((box) => box.querySelector('svg.main-svg')).length"
    everything = browser.execute_script("return document.querySelectorAll('.plot').length")
    assert browser.execute_script(f"return {drawn}") < everything
    browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert browser.execute_script(f"return {drawn}") == everything
    assert browser.execute_script("return document.documentElement.className") == "", "back to the screen's look"


def test_the_benchmark_prints_its_figures(tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[3] / "benchmarks" / "bench_html.py"
    command = [sys.executable, str(script), "--trials", "30", "--repeats", "1"]
    environment = {**os.environ, "EMOTION_SWEEPS_CACHE": str(tmp_path)}
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=tmp_path).stdout
    figures = json.loads(out.splitlines()[-1])
    assert figures["trials"] == 30 and 0 < figures["table_s"] <= figures["plotly_s"] <= figures["drawn_s"]
