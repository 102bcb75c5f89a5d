"""Where and in which number format a trial runs, and why.

bf16 is chosen where the hardware multiplies it: CPUs with avx512_bf16 or amx_bf16, GPUs from Ampere on. There
the base is loaded in bf16 and the forward pass runs under autocast, adapters and head stay fp32. One step
(forward, backward, clip, AdamW) of MiniLM with LoRA r=16 on all linear layers, batch 16, 2 cores with
avx512_bf16, medians of interleaved runs:

    tokens  fp32    fp32 base, autocast  bf16 base  bf16 base, autocast
    24      230 ms  161 ms               185 ms     157 ms
    40      414 ms  302 ms               336 ms     297 ms

The two with autocast differ by less than the noise; the bf16 base takes half the memory.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable

import torch

from emotion_sweeps.errors import UserError

CPU_BF16_FLAGS = ("avx512_bf16", "amx_bf16")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def cpu_flags() -> set[str]:
    """The feature flags of this CPU; empty where the system does not list them."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as info:
            for line in info:
                if line.startswith("flags"):
                    return set(line.partition(":")[2].split())
    except OSError:
        pass
    return set()


def base_dtype(precision: str) -> torch.dtype:
    """The dtype to load the frozen base in."""
    return DTYPES[precision]


def pick_device(requested: str) -> torch.device:
    """The device to train on: `auto` takes a GPU where there is one.

    Raises:
        UserError: a device asked for by name is not there.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if requested == "auto":
        return torch.device("cuda" if gpus else "cpu")
    kind, _, index = requested.partition(":")
    if kind == "cpu":
        return torch.device("cpu")
    if kind != "cuda":
        raise UserError(f"hardware.device must be auto, cpu, cuda or cuda:N, got {requested}")
    if not gpus:
        raise UserError(
            f"hardware.device={requested}: torch {torch.__version__} sees no GPU here; use hardware=cpu, or install a "
            "CUDA build of torch"
        )
    if index and int(index) >= gpus:
        raise UserError(f"hardware.device={requested}: there are {gpus} GPUs here, numbered from 0")
    return torch.device(requested)


def _gpu_has_bf16() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def pick_precision(
    requested: str,
    device: torch.device,
    cpu_flags: Iterable[str],
    *,
    model_type: str = "",
    gpu_has_bf16: bool | None = None,
) -> tuple[str, str]:
    """The precision to train in and the reason, in words for the user.

    Args:
        requested: auto, fp32, bf16 or fp16.
        cpu_flags: the CPU's feature flags (`cpu_flags()`).
        model_type: transformers' model type of the base; Gemma 3 overflows in fp16.
        gpu_has_bf16: left out, the GPU is asked.
    Raises:
        UserError: the hardware or the model cannot do what was asked for.
    """
    if requested not in ("auto", *DTYPES):
        raise UserError(f"hardware.precision must be auto, fp32, bf16 or fp16, got {requested}")
    if requested == "fp16" and model_type.startswith("gemma3"):
        raise UserError("hardware.precision=fp16: Gemma 3 overflows in fp16; use bf16 or fp32")
    if device.type == "cpu":
        return _cpu_precision(requested, set(cpu_flags))
    if device.type != "cuda":
        return ("fp32", f"{device.type} runs in fp32") if requested == "auto" else (requested, "as asked for")
    has_bf16 = _gpu_has_bf16() if gpu_has_bf16 is None else gpu_has_bf16
    return _gpu_precision(requested, has_bf16, model_type)


def _cpu_precision(requested: str, flags: set[str]) -> tuple[str, str]:
    if requested == "fp16":
        raise UserError("hardware.precision=fp16: CPUs train in fp32 or bf16; use hardware.precision=auto")
    found = [flag for flag in CPU_BF16_FLAGS if flag in flags]
    if requested == "auto":
        if found:
            return "bf16", f"this CPU has {found[0]}"
        return "fp32", f"this CPU ({platform.machine()}) has neither avx512_bf16 nor amx_bf16"
    if requested == "bf16" and not found:
        return (
            "bf16",
            "as asked for; this CPU has neither avx512_bf16 nor amx_bf16, so it is slower than fp32",
        )
    return requested, "as asked for"


def _gpu_precision(requested: str, has_bf16: bool, model_type: str) -> tuple[str, str]:
    if requested == "bf16" and not has_bf16:
        raise UserError("hardware.precision=bf16: this GPU has no bf16; use hardware.precision=auto")
    if requested != "auto":
        return requested, "as asked for"
    if has_bf16:
        return "bf16", "this GPU has bf16"
    if model_type.startswith("gemma3"):
        return "fp32", "this GPU has no bf16, and Gemma 3 overflows in fp16"
    return "fp16", "this GPU has no bf16"
