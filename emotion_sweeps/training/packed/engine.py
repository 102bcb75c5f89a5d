"""The packed engine's loop: one forward and backward pass for all slots, then everything a trial for itself.

Each trial has its own cursor, schedule, clipping, dropout streams, evaluations, bests, checkpoints and end. A slot that
becomes free takes the next trial at once. Per-trial mean losses are summed, never averaged over the pack, so gradients
do not mix. Nothing waits for the device but records and evaluations: a loss that is no number is noted there and found
at the next record, as in the solo engine. Trials that evaluate at the same step are evaluated together, all report,
and only then all are asked whether they go on. Where memory runs out the second half of the trials is parked, and
goes on later from the very step that it stood at.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from emotion_sweeps.errors import UserError
from emotion_sweeps.lora.packed_dropout import Stream
from emotion_sweeps.lora.packed_model import PackedModel, quiet_backward
from emotion_sweeps.models.quantization import keep_differentiable
from emotion_sweeps.notices import notice_once
from emotion_sweeps.training.memory import memory_phase
from emotion_sweeps.training.outcome import Outcome
from emotion_sweeps.training.packed.checkpoint import write_checkpoint
from emotion_sweeps.training.packed.cursor import Micro
from emotion_sweeps.training.packed.optimizer import StepOf, optimizer_step
from emotion_sweeps.training.packed.slots import BAD, LOSS, NORM, STEP, Slots
from emotion_sweeps.training.packed.task import PackCounts, Task, is_out_of_memory
from emotion_sweeps.training.packed.trial import PackTrial, Slot
from emotion_sweeps.training.progress import DONE, EARLY, RUNNING, diverged

logger = logging.getLogger("emotion_sweeps")


class PackEngine:
    """Trains trials in slots until the feed has none left.

    Args:
        feed: the next trial for a free slot, None when there is none just now.
        on_end: told of each trial's end: its outcome and kept weights, or what it failed with.
        num_slots: trials at once, at most.
        max_eval_rows: rows of one forward pass of an evaluation.
    """

    def __init__(
        self,
        pack: PackedModel,
        task: Task,
        *,
        num_slots: int,
        precision: str,
        feed: Callable[[], PackTrial | None],
        on_end: Callable[[PackTrial, Outcome | Exception, dict[str, Tensor]], None],
        on_tick: Callable[[list[Slot]], None] | None = None,
        max_eval_rows: int = 1024,
    ) -> None:
        keep_differentiable(pack.module)
        self.pack, self.task, self.num_slots, self.precision = pack, task, num_slots, precision
        self.feed, self.on_end, self.on_tick = feed, on_end, on_tick
        self.max_eval_rows = max_eval_rows
        self.slots = Slots(pack)
        self.parked: list[Slot] = []
        self.counts = PackCounts()

    def run(self) -> None:
        """Train until nobody is left in the slots and the feed gives nobody more."""
        try:
            with quiet_backward():
                self._refill()
                while self.slots.taken:
                    self._guarded_tick()
        finally:
            for slot in [*(self.slots.at(index) for index in self.slots.taken), *self.parked]:
                slot.phases.close()

    # who trains

    def _refill(self) -> None:
        """Parked trials first, then new ones; slots that stay empty go."""
        while len(self.slots.taken) < self.num_slots:
            if self.parked:
                self.slots.unpark(self.parked.pop(0))
                continue
            trial = self.feed()
            if trial is None:
                break
            try:
                self._begin(trial)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                self.on_end(trial, error, {})
        self.slots.close_ranks()

    def _begin(self, trial: PackTrial) -> None:
        index = self.slots.put(trial)
        slot = self.slots.at(index)
        slot.phases.enter_context(memory_phase("train", trial.plan.emit))
        if trial.plan.progress.status in (DONE, EARLY):  # killed after its last evaluation
            self._finish([index])

    # one pass

    def _guarded_tick(self) -> None:
        try:
            self._tick()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            failure = error.with_traceback(None)  # its frames hold the tensors that did not fit
        else:
            return
        self._halve(failure)

    def _tick(self) -> None:
        members = [self.slots.at(index) for index in range(self.pack.num_slots)]
        micros = [slot.cursor.next() for slot in members]
        self._forward_backward(members, micros)
        stepping = [index for index, micro in enumerate(micros) if micro.last]
        if not stepping:
            return
        self._step(stepping)
        for index in stepping:
            members[index].epoch = micros[index].epoch
            members[index].cursor.commit()
        if self.on_tick is not None:
            self.on_tick(members)
        self._after_step(stepping)

    def _forward_backward(self, members: list[Slot], micros: list[Micro]) -> None:
        task, pack = self.task, self.pack
        pack.module.train()
        batch = task.collate([micro.entries for micro in micros], pack.device)
        streams = [
            Stream(slot.stream_seed(slot.step, micro.number), rows, width)
            for slot, micro, rows, width in zip(members, micros, batch.num_rows, batch.widths, strict=True)
        ]
        with pack.using(None, streams) as model, self.autocast():
            losses = task.losses(model, batch, [slot.trial for slot in members])
        torch.autograd.backward(losses.sum())
        self.counts.tick(len(members))
        with torch.no_grad():
            found = losses.detach().to(self.slots.counters.dtype)
            counters = self.slots.counters
            counters[STEP] += found
            number = torch.tensor([slot.step + 1 for slot in members])
            bad = ~torch.isfinite(found) & (counters[BAD] == 0)
            counters[BAD] = torch.where(bad, number.to(counters, non_blocking=True), counters[BAD])

    def _step(self, stepping: list[int]) -> None:
        steps = []
        for index in stepping:
            slot = self.slots.at(index)
            share, plan = slot.plan.schedule(slot.step), slot.plan
            steps.append(
                StepOf(
                    slot=index,
                    number=slot.step + 1,
                    adapter_rate=plan.learning_rate * share,
                    head_rate=(plan.head_learning_rate or plan.learning_rate) * share,
                    weight_decay=plan.weight_decay,
                    max_norm=slot.trial.max_grad_norm,
                )
            )
        counters = self.slots.counters
        norms = optimizer_step(self.pack.store, steps).to(counters.dtype)
        everyone = len(stepping) == self.pack.num_slots
        where: Any = slice(None) if everyone else torch.tensor(stepping, device=counters.device)
        counters[NORM, where] = norms
        counters[LOSS, where] += counters[STEP, where]
        counters[STEP, where] = 0

    # after it

    def _after_step(self, stepping: list[int]) -> None:
        evaluating = [i for i in stepping if self.slots.at(i).step in self.slots.at(i).plan.evaluation_steps]
        logging_now = {i for i in stepping if self.slots.at(i).step % self.slots.at(i).plan.log_every == 0}
        failed = self._log(sorted(logging_now | set(evaluating)))
        if evaluating := [index for index in evaluating if index not in failed]:
            failed |= self._evaluate(evaluating)
        for index, error in failed.items():
            self._fail(index, error)
        ended = [i for i in evaluating if i not in failed and self.slots.at(i).plan.progress.status != RUNNING]
        if ended:
            self._finish(ended)
        if failed or evaluating:
            self._refill()

    def _log(self, indices: list[int]) -> dict[int, Exception]:
        """Emit train records; the trials whose loss is no longer a number."""
        failed: dict[int, Exception] = {}
        if not indices:
            return failed
        values = self.slots.counters.tolist()
        for index in indices:
            slot = self.slots.at(index)
            try:
                loss = values[LOSS][index] / max(1, slot.step - slot.last_logged)
                if not math.isfinite(loss):
                    raise diverged(loss, int(values[BAD][index]) or slot.step)
                slot.plan.emit(slot.train_record(loss, values[NORM][index]))
            except Exception as error:
                failed[index] = error
            slot.last_logged = slot.step
            self.slots.counters[LOSS, index] = 0
        return failed

    def _evaluate(self, indices: list[int]) -> dict[int, Exception]:
        """Evaluate together, report everybody, then ask everybody; the trials that failed in it."""
        begin, failed = time.perf_counter(), dict[int, Exception]()
        members = {index: self.slots.at(index) for index in indices}

        def to_all(record: dict[str, Any]) -> None:
            for slot in members.values():
                slot.plan.emit(dict(record))

        with memory_phase("evaluate", to_all):
            results = self._with_fewer_rows(lambda rows: self.task.evaluate(self.pack, self.autocast, indices, rows))
        spent_s = time.perf_counter() - begin
        for index, (metrics, _) in zip(indices, results, strict=True):
            members[index].plan.progress.evaluate_s += spent_s
            failed |= self._caught(self._report, index, metrics)
        for index, (metrics, details) in zip(indices, results, strict=True):
            if index not in failed:
                failed |= self._caught(self._judge, index, metrics, details)
        return failed

    def _caught(self, call: Callable[..., None], index: int, *args: Any) -> dict[int, Exception]:
        """Do something of one trial; what it raises is that trial's failure alone."""
        try:
            call(index, *args)
        except Exception as error:
            return {index: error}
        return {}

    def _report(self, index: int, metrics: dict[str, float]) -> None:
        slot = self.slots.at(index)
        where = {"split": "validation", "step": slot.step, "epoch": slot.epoch, "time_s": slot.elapsed_s()}
        slot.plan.emit({"kind": "eval", **where, **metrics})

    def _judge(self, index: int, metrics: dict[str, float], details: Any) -> None:
        """Take in an evaluation, keep the best weights, write the checkpoint."""
        slot = self.slots.at(index)
        if slot.plan.progress.evaluated(slot.step, slot.epoch, metrics):
            slot.best_weights, slot.best_details = self.pack.store.read(index, slot.trial.rank), details
        if slot.plan.checkpoint_dir is not None:
            write_checkpoint(self.pack, index, slot, slot.plan.checkpoint_dir)

    # ends

    def _fail(self, index: int, error: Exception) -> None:
        slot = self.slots.at(index)
        slot.phases.close()
        self.slots.free([index])
        self.counts.trials += 1
        self.on_end(slot.trial, error, slot.best_weights)

    def _finish(self, indices: list[int]) -> None:
        """Predict with the kept weights, for all that end now together, and let them go."""
        ended = {index: self.slots.at(index) for index in indices}
        for index, slot in ended.items():
            slot.bank_time()
            slot.phases.close()
            self.pack.store.write(index, slot.best_weights)
        outcomes = self._with_fewer_rows(lambda rows: self.task.outcomes(self.pack, self.autocast, ended, rows))
        self.slots.free(indices)
        for index, slot in ended.items():
            self.counts.trials += 1
            self.on_end(slot.trial, outcomes[index], slot.best_weights)

    # memory

    def _with_fewer_rows(self, call: Callable[[int], Any]) -> Any:
        """Evaluate with half the rows at a time until they fit."""
        while True:
            try:
                return call(self.max_eval_rows)
            except Exception as error:
                if not is_out_of_memory(error) or self.max_eval_rows <= 1:
                    raise
            self.max_eval_rows //= 2
            self._release_memory()

    def _halve(self, error: Exception) -> None:
        """Park the second half; a trial that does not fit alone has failed."""
        self.slots.rewind()
        taken = self.slots.taken
        if len(taken) == 1:
            self._release_memory()
            told = UserError(
                "out of memory with a single trial; lower hardware.micro_batch_size or data.max_length, or set "
                "hardware.load_in_4bit=true"
            )
            told.__cause__ = error
            self._fail(taken[0], told)
            self._refill()
            return
        half = (len(taken) + 1) // 2
        self.parked += [self.slots.park(index) for index in taken[half:]]
        self.slots.close_ranks()
        self.num_slots, self.counts.halvings = half, self.counts.halvings + 1
        self._release_memory()
        notice_once(f"out of memory with {len(taken)} trials at once: going on with {half}, the others follow")

    def _release_memory(self) -> None:
        gc.collect()
        if self.pack.device.type == "cuda":
            torch.cuda.empty_cache()

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The mixed precision of forward passes, as the solo engine's."""
        kind = self.pack.device.type
        return torch.autocast(kind, torch.bfloat16, enabled=self.precision == "bf16")
