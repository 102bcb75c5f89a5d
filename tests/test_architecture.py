"""The house holds: layers import one way, nothing heavy at import time, modules stay small, documents' links work."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "emotion_sweeps"
LAYERS = [
    ["errors", "notices", "paths", "handle"],
    ["config"],
    ["data"],
    ["models"],
    ["lora"],
    ["training"],
    ["tracking"],
    ["trial"],
    ["sweeps"],
    ["report"],
    ["preflight", "train", "cli"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
HEAVY = [
    "torch",
    "transformers",
    "peft",
    "trl",
    "datasets",
    "optuna",
    "wandb",
    "sklearn",
    "pandas",
    "bitsandbytes",
]
LIGHT_MODULES = [
    "emotion_sweeps",
    "emotion_sweeps.config.compose",
    "emotion_sweeps.sweeps.study_sweeper",
    "emotion_sweeps.sweeps.packed_launcher",
    "emotion_sweeps.train",
    "emotion_sweeps.cli",
]
MODULES = sorted(PACKAGE.rglob("*.py"))


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_layers(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = (name.split(".") for name in names if name.startswith("emotion_sweeps."))
    return {p[1] for p in parts if p[1] != "__version__"}


@pytest.mark.parametrize("path", [p for p in MODULES if p != PACKAGE / "__init__.py"], ids=str)
def test_each_layer_imports_only_itself_and_earlier_ones(path: Path) -> None:
    own = layer(path)
    assert own in RANK, f"{own} has no place in the house: add it to LAYERS"
    for other in imported_layers(path):
        assert RANK[other] <= RANK[own], f"{path.relative_to(ROOT)} imports the later layer {other}"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_modules_stay_small_and_say_what_they_are(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 330, f"{path.relative_to(ROOT)} is too long to see whole: split it"
    assert ast.get_docstring(ast.parse(text)), f"{path.relative_to(ROOT)} does not say what it is for"


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_nothing_heavy_at_import_time(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['train', '--help']\n"
        "from emotion_sweeps.train import main\n"
        "try: main()\n"
        f"except SystemExit: print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "HEAVY []" in out.stdout
    assert "model: custom" in out.stdout


def test_every_group_option_says_what_it_is_for() -> None:
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert path.read_text().startswith("#"), f"{path.relative_to(ROOT)} has no opening comment"


def test_links_in_the_documents_work() -> None:
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text()):
            if not target.startswith(("http:", "https:", "mailto:")):
                assert (path.parent / target).exists(), (
                    f"{path.relative_to(ROOT)} links to {target}, which is not there"
                )


def test_no_secret_or_machine_path_in_the_repository() -> None:
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split(
        "\n"
    )
    for name in filter(None, listed):
        path = ROOT / name
        if path.suffix in {".png", ".parquet"} or not path.exists() or path == Path(__file__):
            continue
        text = path.read_text(errors="replace")
        for forbidden in ("/work/", "/root/", "pypi.org", "files.pythonhosted", "registry.npmjs"):
            assert forbidden not in text, f"{name} names {forbidden}"
