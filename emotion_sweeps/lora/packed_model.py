"""Turn a frozen base into a pack: adapters and heads of many trials on one set of base weights.

A trial's adapter is first made by `add_adapter`, the very function of a trial alone, on a twin of the base: a copy
of the module tree that shares every weight. So its first weights, its targets, its parameter count and its files are
those of the solo trial by construction; the pack copies numbers in and out under PEFT's names. A twin costs its
module objects and its adapter, no base weights.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from emotion_sweeps.lora.packed_attention import use_packed_attention
from emotion_sweeps.lora.packed_dropout import Stream
from emotion_sweeps.lora.packed_layers import PackedDropout, PackedLinear, PackedLora, PackedNorm, PackState
from emotion_sweeps.lora.packed_store import ADAPTER, HEAD, Entry, SlotStore
from emotion_sweeps.lora.targets import matched_modules
from emotion_sweeps.models.heads import draw_head, head_names

_PREFIX = "base_model.model."
_SAVED = ".modules_to_save.default"
_QUIET = ("hf_quantizer",)  # shared by twins, not copied


def base_twin(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the module tree that shares all parameters and buffers with `model`."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    shared |= {id(model.__dict__[name]): model.__dict__[name] for name in _QUIET if name in model.__dict__}
    return copy.deepcopy(model, shared)


def head_drawn_from(model: PreTrainedModel, seed: int) -> set[str]:
    """The head parameters that `draw_head` drew from `seed`; the others came with the checkpoint."""
    before = {name: value.detach().clone() for name, value in _head_parameters(model)}
    probe = copy.deepcopy({name: model.get_submodule(name) for name in head_names(model)})
    twin = base_twin(model)
    for name, module in probe.items():
        twin.set_submodule(name, module)
    draw_head(twin, seed)
    return {name for name, value in _head_parameters(twin) if torch.equal(value.detach().cpu(), before[name].cpu())}


def redraw_head(twin: PreTrainedModel, seed: int, drawn: set[str]) -> None:
    """Give a twin a head of its own, drawn from `seed` as `load_classifier` does; the checkpoint's part stays."""
    for head in head_names(twin):
        twin.set_submodule(head, copy.deepcopy(twin.get_submodule(head)))
    keep = {name for name, _ in _head_parameters(twin)} - drawn
    draw_head(twin, seed, keep)


def _head_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [pair for head in head_names(model) for pair in model.get_submodule(head).named_parameters(prefix=head)]


def unpackable(model: PreTrainedModel, targets: Sequence[str]) -> str | None:
    """Why adapters on `targets` (and this model's head) cannot be packed; None when they can."""
    for name in matched_modules(model, targets):
        module = model.get_submodule(name)
        if not isinstance(module, (nn.Linear, Conv1D)):
            return f"lora.target_modules: {name} is a {type(module).__name__}, and packs adapt linear layers alone"
    for head in head_names(model):
        for name, module in model.get_submodule(head).named_modules(prefix=head):
            own = any(True for _ in module.parameters(recurse=False))
            if own and not isinstance(module, (nn.Linear, nn.LayerNorm)):
                return f"the class head's {name} is a {type(module).__name__}, which packs do not hold"
    if getattr(model, "hf_device_map", None):
        places = {str(place) for place in model.hf_device_map.values()}
        if len(places) > 1:
            return "hardware.device_map spreads the base over several devices"
    return None


class PackedModel:
    """A base with `num_slots` adapters and heads on it.

    Args:
        model: a frozen base with its head; it is copied (weights shared), never changed.
        targets: PEFT's target suffixes, see `resolve_targets`.
        dtype: of adapters, heads and moments.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        targets: Sequence[str],
        *,
        num_slots: int,
        max_rank: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        reason = unpackable(model, targets)
        assert reason is None, reason
        self.device = model.device
        self.module = base_twin(model)
        self.module.requires_grad_(False)
        self.state = PackState(torch.zeros(num_slots, 1, 1, dtype=dtype, device=self.device), [0.0] * num_slots)
        self._places: list[tuple[nn.Module, str, str]] = []  # layer, attribute, PEFT name
        entries = [*self._put_adapters(model, targets), *self._put_heads(model)]
        self._put_dropout(head_names(model))
        use_packed_attention(self.module, self.state)
        self.store = SlotStore(entries, num_slots, max_rank, dtype=dtype, device=self.device)
        self._bind()

    # set-up

    def _put_adapters(self, model: PreTrainedModel, targets: Sequence[str]) -> list[Entry]:
        entries = []
        for name in matched_modules(model, targets):
            base = self.module.get_submodule(name)
            wide, tall = _sizes(base)
            layer = PackedLora(base, name, self.state)
            layer.train(base.training)
            self.module.set_submodule(name, layer)
            for attribute, letter, shape in (("lora_a", "A", (0, wide)), ("lora_b", "B", (tall, 0))):
                peft_name = f"{_PREFIX}{name}.lora_{letter}.default.weight"
                self._places.append((layer, attribute, peft_name))
                entries.append(Entry(peft_name, shape, ADAPTER))
        return entries

    def _put_heads(self, model: PreTrainedModel) -> list[Entry]:
        entries = []
        for head in head_names(model):
            for name, module in model.get_submodule(head).named_modules(prefix=head):
                if not isinstance(module, (nn.Linear, nn.LayerNorm)):
                    continue
                packed = (
                    PackedLinear(self.state) if isinstance(module, nn.Linear) else PackedNorm(self.state, module.eps)
                )
                packed.train(module.training)
                self.module.set_submodule(name, packed)
                for attribute, parameter in module.named_parameters(recurse=False):
                    peft_name = f"{_PREFIX}{head}{_SAVED}{name.removeprefix(head)}.{attribute}"
                    self._places.append((packed, attribute, peft_name))
                    entries.append(Entry(peft_name, tuple(parameter.shape), HEAD))
        return entries

    def _put_dropout(self, heads: Sequence[str]) -> None:
        for name, module in list(self.module.named_modules()):
            if isinstance(module, nn.Dropout) and module.p > 0:
                packed = PackedDropout(module.p, name, self.state, in_head=name.split(".")[0] in heads)
                packed.train(module.training)
                self.module.set_submodule(name, packed)

    def _bind(self) -> None:
        """Make the layers' parameters views into the store; gradients accumulate in place there."""
        entries = {entry.name: entry for entry in self.store.layout.entries}
        weights, gradients = self.store.buffers["weights"], self.store.buffers["gradients"]
        for layer, attribute, name in self._places:
            parameter = nn.Parameter(self.store.layout.view(weights, entries[name]))
            parameter.grad = self.store.layout.view(gradients, entries[name])
            setattr(layer, attribute, parameter)

    # slots

    @property
    def num_slots(self) -> int:
        """Trials that fit at once."""
        return self.store.num_slots

    @property
    def max_rank(self) -> int:
        """Rank that adapters are padded to."""
        return self.store.layout.max_rank

    def load(self, slot: int, weights: Mapping[str, Tensor], *, scaling: float, dropout: float) -> None:
        """Start a trial in a slot: its weights, and nothing of what was there before."""
        self.store.clear(slot)
        self.store.write(slot, weights)
        self.state.scaling[slot] = scaling
        self.state.lora_dropout[slot] = dropout

    def resize(self, keep: Sequence[int | None], max_rank: int) -> None:
        """Another number of slots: slot i becomes what slot `keep[i]` was, empty where that is None."""
        scaling = torch.zeros(len(keep), 1, 1, dtype=self.state.scaling.dtype, device=self.device)
        dropout = [0.0] * len(keep)
        for to, of in enumerate(keep):
            if of is not None:
                scaling[to], dropout[to] = self.state.scaling[of], self.state.lora_dropout[of]
        self.store = self.store.resized(keep, max_rank)
        self.state.scaling, self.state.lora_dropout = scaling, dropout
        self._bind()

    @contextmanager
    def using(self, slots: list[int] | None = None, streams: Sequence[Stream] | None = None) -> Iterator[nn.Module]:
        """The model, for forward passes over rows of these slots (trial-major)."""
        with self.state.using(slots, streams):
            yield self.module


@contextmanager
def quiet_backward() -> Iterator[None]:
    """Without torch's hint that a gradient could lie better: parameters are views with a stride of a whole row."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")
        yield


def _sizes(layer: nn.Module) -> tuple[int, int]:
    """In and out features, whichever way the weight lies and whether it is quantised."""
    if isinstance(layer, Conv1D):
        wide, tall = layer.weight.shape
        return int(wide), int(tall)
    assert isinstance(layer, nn.Linear)
    return layer.in_features, layer.out_features


def scaling_of(r: int, alpha: float, use_rslora: bool) -> float:
    """alpha / r, or alpha / sqrt(r) with rsLoRA."""
    return alpha / r**0.5 if use_rslora else alpha / r
