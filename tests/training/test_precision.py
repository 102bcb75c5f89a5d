from __future__ import annotations

import pytest
import torch

from emotion_sweeps.errors import UserError
from emotion_sweeps.training import precision
from emotion_sweeps.training.precision import base_dtype, cpu_flags, pick_device, pick_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_a_cpu_with_bf16_uses_it(flag: str) -> None:
    assert pick_precision("auto", CPU, {"avx2", flag}) == ("bf16", f"this CPU has {flag}")


def test_a_cpu_without_bf16_runs_in_fp32_and_says_why() -> None:
    chosen, reason = pick_precision("auto", CPU, {"avx2"})
    assert chosen == "fp32" and "neither avx512_bf16 nor amx_bf16" in reason
    chosen, reason = pick_precision("bf16", CPU, {"avx2"})
    assert chosen == "bf16" and "slower than fp32" in reason
    assert pick_precision("fp32", CPU, {"avx512_bf16"})[0] == "fp32"


@pytest.mark.parametrize(
    "has_bf16, model_type, expected",
    [
        (True, "gemma3_text", "bf16"),
        (True, "roberta", "bf16"),
        (False, "roberta", "fp16"),
        (False, "gemma3_text", "fp32"),
    ],
)
def test_gpus(has_bf16: bool, model_type: str, expected: str) -> None:
    chosen, reason = pick_precision("auto", GPU, (), model_type=model_type, gpu_has_bf16=has_bf16)
    assert chosen == expected and "bf16" in reason


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match="Gemma 3 overflows in fp16"):
        pick_precision("fp16", GPU, (), model_type="gemma3_text", gpu_has_bf16=False)
    with pytest.raises(UserError, match="this GPU has no bf16"):
        pick_precision("bf16", GPU, (), gpu_has_bf16=False)
    with pytest.raises(UserError, match="CPUs train in fp32 or bf16"):
        pick_precision("fp16", CPU, ())
    with pytest.raises(UserError, match="auto, fp32, bf16 or fp16, got int8"):
        pick_precision("int8", CPU, ())


def test_fp16_is_left_to_other_models_on_any_gpu() -> None:
    assert pick_precision("fp16", GPU, (), model_type="qwen3", gpu_has_bf16=True)[0] == "fp16"


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == CPU
    with pytest.raises(UserError, match="hardware.device=cuda:0: torch .* sees no GPU here"):
        pick_device("cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("auto") == pick_device("cuda") == GPU
    assert pick_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match="there are 2 GPUs here"):
        pick_device("cuda:2")
    with pytest.raises(UserError, match="must be auto, cpu, cuda or cuda:N, got tpu"):
        pick_device("tpu")


def test_flags_and_dtypes() -> None:
    assert base_dtype("bf16") is torch.bfloat16 and base_dtype("fp32") is torch.float32
    assert all(" " not in flag for flag in cpu_flags())
    assert precision.CPU_BF16_FLAGS == ("avx512_bf16", "amx_bf16")
