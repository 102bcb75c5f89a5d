"""Step time of N packed LoRA trials against PEFT one by one, eager and compiled, at real model shapes.

    python benchmarks/bench_packed_gpu.py --shape gemma3_270m [--out gemma3_270m.json]
    python benchmarks/bench_packed_gpu.py --shape roberta_base --tiny --device cpu     # does it run

Needs torch, transformers and peft alone, and no download: weights are random, which changes no time. A step is
forward, backward, clipping and AdamW over batch x tokens; a trial's time is the step's divided by its trials. Beside
it: the share of the bf16 matmul ceiling that this card reaches in this very run, and peak memory. One command a
shape, unattended; it stops by itself after --seconds and says what it left out.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoModelForSequenceClassification

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from emotion_sweeps.lora.inject import add_adapter
from emotion_sweeps.lora.packed_dropout import Stream
from emotion_sweeps.lora.packed_model import PackedModel, base_twin
from emotion_sweeps.lora.targets import resolve_targets
from emotion_sweeps.models.heads import draw_head, feed_head_full_precision, head_names
from emotion_sweeps.training.checkpoints import trainable_weights
from emotion_sweeps.training.losses import multilabel_losses
from emotion_sweeps.training.packed.optimizer import StepOf, optimizer_step

LABELS, LEARNING_RATE, HEAD_RATE = 28, 1e-3, 1e-2
_DECODER: dict[str, Any] = {"pad_token_id": 0, "tie_word_embeddings": True}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma3_270m": (
        "gemma3_text",
        {
            **_DECODER, "vocab_size": 262144, "hidden_size": 640, "num_hidden_layers": 18, "num_attention_heads": 4,
            "num_key_value_heads": 1, "head_dim": 256, "intermediate_size": 2048, "sliding_window": 512,
        },
    ),
    "gemma3_1b": (
        "gemma3_text",
        {
            **_DECODER, "vocab_size": 262144, "hidden_size": 1152, "num_hidden_layers": 26, "num_attention_heads": 4,
            "num_key_value_heads": 1, "head_dim": 256, "intermediate_size": 6912, "sliding_window": 512,
        },
    ),
    "qwen3_0_6b": (
        "qwen3",
        {
            **_DECODER, "vocab_size": 151936, "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16,
            "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 3072,
        },
    ),
    "roberta_base": (
        "roberta",
        {
            "vocab_size": 50265, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
            "intermediate_size": 3072, "max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1,
        },
    ),
}  # fmt: skip
TINY = {"vocab_size": 500, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--slots", default="1,2,4,8,16,32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--dropout", type=float, default=0.05, help="of the adapters")
    parser.add_argument("--base-dropout", type=float, default=None, help="of the base; left out, the architecture's")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=480, help="begin nothing more after this")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-compile", action="store_true", help="leave out the compiled baseline")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


class Bench:
    """One base at a shape, and the ways to train adapters on it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.device, self.begun_s = args, torch.device(args.device), time.perf_counter()
        kind, shape = SHAPES[args.shape]
        shape = {**shape, **TINY, "num_key_value_heads": 2, "head_dim": 16} if args.tiny else shape
        if args.base_dropout is not None:
            shape |= dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), args.base_dropout)
        config = transformers.AutoConfig.for_model(kind, **shape, num_labels=LABELS)
        torch.manual_seed(0)
        with torch.device(self.device):
            model = AutoModelForSequenceClassification.from_config(config, dtype=torch.bfloat16)
        draw_head(model, 0)
        feed_head_full_precision(model)
        self.model = model.requires_grad_(False)
        generator = torch.Generator().manual_seed(1)
        self.ids = torch.randint(5, config.vocab_size, (args.batch, args.tokens), generator=generator).to(self.device)
        self.labels = (torch.rand(args.batch, LABELS, generator=generator) < 0.1).float().to(self.device)

    def late(self) -> bool:
        """Whether the time is up."""
        return time.perf_counter() - self.begun_s > self.args.seconds

    def autocast(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16)

    def matrix_parameters(self) -> int:
        """Parameters of the backbone's linear layers: what a token is multiplied with."""
        heads = head_names(self.model)
        return sum(
            m.weight.numel()
            for name, m in self.model.named_modules()
            if isinstance(m, nn.Linear) and name.split(".")[0] not in heads
        )

    def peft(self) -> Any:
        """One trial as PEFT has it."""
        return add_adapter(
            base_twin(self.model), r=self.args.rank, alpha=2 * self.args.rank, dropout=self.args.dropout,
            target_modules="all-linear", use_rslora=False, use_dora=False, bias="none", modules_to_save=[],
            task_type="SEQ_CLS", base_reference="random", seed=0,
        )  # fmt: skip

    def one_by_one(self, compiled: bool) -> Callable[[], None]:
        """A step of one trial: PEFT, torch's clipping and fused AdamW."""
        model = self.peft().train()
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        groups = [
            {"params": [p for n, p in named.items() if ("modules_to_save" in n) == head], "lr": rate}
            for head, rate in ((False, LEARNING_RATE), (True, HEAD_RATE))
        ]
        optimizer = torch.optim.AdamW(groups, fused=True)
        parameters = list(named.values())

        def loss_of(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            with self.autocast():
                logits = model(input_ids=ids).logits
            return multilabel_losses(logits, labels).mean()

        run = torch.compile(loss_of, dynamic=False) if compiled else loss_of

        def step() -> None:
            run(self.ids, self.labels).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return step

    def packed(self, slots: int) -> Callable[[], None]:
        """A step of `slots` trials in a pack."""
        targets = resolve_targets(self.model, "all-linear")
        pack = PackedModel(self.model, targets, num_slots=slots, max_rank=self.args.rank)
        weights = trainable_weights(self.peft())
        for slot in range(slots):
            pack.load(slot, weights, scaling=2.0, dropout=self.args.dropout)
        pack.module.train()
        ids, number = self.ids.repeat(slots, 1), 0

        def step() -> None:
            nonlocal number
            number += 1
            streams = [Stream(number, self.args.batch, self.args.tokens)] * slots
            with pack.using(None, streams) as model, self.autocast():
                logits = model(input_ids=ids).logits.view(slots, -1, LABELS)
            losses = multilabel_losses(logits, self.labels.expand(logits.shape)).mean(1)
            losses.sum().backward()
            steps = [StepOf(slot, number, LEARNING_RATE, HEAD_RATE, 0.01, 1.0) for slot in range(slots)]
            optimizer_step(pack.store, steps)

        return step

    def measure(self, make: Callable[[], Callable[[], None]]) -> dict[str, float]:
        """Median seconds of a step after warm-up, and the peak memory of it all."""
        self.clear()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        step = make()
        for _ in range(3):
            step()
        self.wait()
        warmup_s, times = time.perf_counter() - begin, []
        for _ in range(self.args.steps):
            begin = time.perf_counter()
            step()
            self.wait()
            times.append(time.perf_counter() - begin)
        peak = torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else 0.0
        return {"step_s": statistics.median(times), "warmup_s": warmup_s, "peak_gib": round(peak, 2)}

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def clear(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def ceiling_flops(self) -> float:
        """bf16 matmul operations a second that this device reaches on a large square."""
        size = 512 if self.args.tiny else 8192
        a, b = (torch.randn(size, size, device=self.device, dtype=torch.bfloat16) for _ in range(2))
        best = float("inf")
        for _ in range(8):
            begin = time.perf_counter()
            a @ b
            self.wait()
            best = min(best, time.perf_counter() - begin)
        return 2 * size**3 / best


def run(args: argparse.Namespace) -> dict[str, Any]:
    """All the measurements, and what they say."""
    bench = Bench(args)
    tokens, parameters, ceiling = args.batch * args.tokens, bench.matrix_parameters(), bench.ceiling_flops()
    work = 4 * parameters * tokens  # forward, and the gradient of the activations: the base is frozen
    found: dict[str, Any] = {
        "shape": args.shape, "tiny": args.tiny, "tokens_a_trial": tokens, "rank": args.rank, "dropout": args.dropout,
        "matrix_parameters": parameters, "ceiling_tflops": round(ceiling / 1e12, 2), "left_out": [],
        "device": torch.cuda.get_device_name() if bench.device.type == "cuda" else "cpu",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }  # fmt: skip
    ways: dict[str, tuple[int, Callable[[], Callable[[], None]]]] = {"eager": (1, lambda: bench.one_by_one(False))}
    if not args.no_compile:
        ways["compiled"] = (1, lambda: bench.one_by_one(True))
    for slots in (int(n) for n in args.slots.split(",")):
        ways[f"packed {slots}"] = (slots, lambda slots=slots: bench.packed(slots))  # type: ignore[misc]
    rows: dict[str, dict[str, float]] = {}
    for name, (trials, make) in ways.items():
        if bench.late():
            found["left_out"].append(f"{name}: time")
            continue
        try:
            row = bench.measure(make)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            found["left_out"].append(f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:120]}")
            continue
        each_s = row["step_s"] / trials
        row |= {"ms_a_trial": 1000 * each_s, "share_of_ceiling": work / each_s / ceiling}
        for other in ("eager", "compiled"):
            if other in rows:
                row[f"times_{other}"] = rows[other]["ms_a_trial"] / row["ms_a_trial"]
        rows[name] = {key: float(f"{value:.4g}") for key, value in row.items()}
        print(name, rows[name], flush=True)
    found["rows"] = rows
    found["seconds"] = round(time.perf_counter() - bench.begun_s, 1)
    return found


def main() -> None:
    args = arguments()
    warnings.filterwarnings("ignore", message="grad and param do not obey")
    found = run(args)
    text = json.dumps(found, indent=2)
    if args.out is not None:
        args.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
