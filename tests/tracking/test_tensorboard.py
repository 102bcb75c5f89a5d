from __future__ import annotations

from pathlib import Path

import pytest

from emotion_sweeps.tracking.tensorboard import TENSORBOARD_DIR, TensorboardTracker
from emotion_sweeps.tracking.tracker import RunInfo

pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")


def test_the_event_file_holds_every_measurement_at_its_step(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = TensorboardTracker()
    config = {"lora": {"r": 24}, "text": "<script>"}
    tracker.start(RunInfo(name="exp0", group=None, run_dir=tmp_path, run_id="a" * 16, config=config))
    tracker.log({"kind": "memory", "phase": "load", "peak_gib": 0.5})
    tracker.log({"kind": "train", "step": 10, "loss": 0.75, "text": "x"})
    tracker.log({"kind": "eval", "split": "validation", "step": 20, "loss": 0.5, "macro_f1": 0.25})
    tracker.finish("complete", {"best/loss": 0.5})
    tracker.finish("complete", {})  # closed already

    events = EventAccumulator(str(tmp_path / TENSORBOARD_DIR))
    events.Reload()
    read = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert read == {
        "memory/load/peak_gib": [(0, 0.5)],
        "train/loss": [(10, 0.75)],
        "validation/loss": [(20, 0.5)],
        "validation/macro_f1": [(20, 0.25)],
    }
    texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]}
    assert '"r": 24' in texts["config/text_summary"]
    assert '"best/loss": 0.5' in texts["summary/text_summary"]
    # a code block: every line is indented, so markup in it is shown and not read
    assert all(line.startswith("    ") for text in texts.values() for line in text.splitlines())
