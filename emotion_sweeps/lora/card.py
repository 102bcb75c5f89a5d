"""The card beside an adapter: what is needed to rebuild the base and read the answers, as plain JSON.

PEFT's own files say how the adapter is shaped, not which head sits on the base, how it pools, in which order
the labels come or where the thresholds are. `emotion_sweeps.json` does. It never holds a path of the machine
that wrote it: a base from a user's own folder is named by the folder's name, and given again when it is
loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emotion_sweeps.errors import UserError

CARD_FILE = "emotion_sweeps.json"
CARD_SCHEMA = 1
REQUIRED = ("task", "kind", "source", "label_names", "multilabel", "pooling")


def complete_card(card: Mapping[str, Any], *, reference: str, recipe: str | None) -> dict[str, Any]:
    """The card as it is written: schema first, the base's reference, a twin's recipe, and no local path."""
    absent = [key for key in REQUIRED if key not in card]
    assert not absent, f"the card lacks {absent}"
    source = dict(card["source"])
    path = str(source.get("path", reference))
    if Path(path).expanduser().is_dir() or Path(path).is_absolute() or path.startswith("~"):
        source.update(path=Path(path).name, local_folder=True)
    source["reference"] = reference
    if recipe is not None:
        source["recipe"] = recipe
    return {"schema": CARD_SCHEMA, **card, "source": source}


def write_card(card: Mapping[str, Any], folder: Path) -> None:
    """Write the card as strict JSON."""
    text = json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / CARD_FILE).write_text(text + "\n", encoding="utf-8")


def read_card(folder: Path) -> dict[str, Any]:
    """The card of an adapter folder.

    Raises:
        UserError: the folder was not written by this project, or by a later version of it.
    """
    file = folder / CARD_FILE
    if not file.is_file():
        raise UserError(f"adapter: {folder} holds no {CARD_FILE}; give the adapter/ folder of a finished trial")
    try:
        card: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"adapter: {file} is not valid JSON ({error}); restore it or train again") from error
    if card.get("schema") != CARD_SCHEMA or any(key not in card for key in REQUIRED):
        raise UserError(
            f"adapter: {file} has schema {card.get('schema')}, this version reads {CARD_SCHEMA}; update emotion_sweeps"
        )
    return card
