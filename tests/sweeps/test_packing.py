"""Which trials share a pack, why others run alone, and the queue between claiming threads and the pack."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus

from emotion_sweeps.config.compose import compose
from emotion_sweeps.errors import UserError
from emotion_sweeps.sweeps.packing import differences, pack_key, rank_bucket, why_alone
from emotion_sweeps.sweeps.packing_queue import ThreadQueue, WatchedSource
from emotion_sweeps.sweeps.source import ListSource, Outcome, SourceHandle
from emotion_sweeps.sweeps.worker import work

OWN = [
    "lora.alpha=7",
    "lora.dropout=.3",
    "lora.use_rslora=true",
    "lora.learning_rate=5e-4",
    "lora.head_learning_rate=1e-2",
    "lora.weight_decay=.1",
    "scheduler=cosine",
    "seed=7",
    "training.max_grad_norm=3",
    "training.epochs=9",
    "training.evals_per_epoch=2",
    "training.early_stopping_patience=1",
    "training.selection_metric=macro_f1",
    "task.weighting=sqrt",
    "task.label_smoothing=.1",
    "task.focal_gamma=2",
    "objective.metric=macro_f1",
    "name=x",
    "lora.r=13",
]
SHARED = {
    "model=qwen3_tiny": "model",
    "data.max_length=17": "data",
    "lora.target_modules=attention": "targets",
    "hardware.precision=fp32": "hardware",
    "task.tune_thresholds=false": "task",
    "training.predict_test=false": "predict_test",
    "training.global_batch_size=4": "micro_batch_size",
    "lora.r=8": "ranks",
}
TINY = ["model=roberta_tiny"]


@pytest.mark.parametrize("override", OWN)
def test_what_is_a_trials_own_does_not_keep_it_out(override: str) -> None:
    one, other = compose(TINY), compose([*TINY, override])
    assert pack_key(one) == pack_key(other) and why_alone(other) is None


@pytest.mark.parametrize("override", SHARED)
def test_what_a_pack_shares_does(override: str) -> None:
    one, other = compose(TINY), compose([*TINY, override])
    assert pack_key(one) != pack_key(other)
    assert SHARED[override] in differences(one, other)


def test_generation_trials_share_their_smoothing() -> None:
    fixed = ["model=qwen3_tiny", "task=label_generation"]
    assert pack_key(compose(fixed)) != pack_key(compose([*fixed, "task.label_smoothing=.1"]))


@pytest.mark.parametrize(
    "override, reason",
    [
        ("lora.use_dora=true", "lora.use_dora=true"),
        ("lora.bias=all", "lora.bias=all"),
        ("lora.modules_to_save=[embeddings]", "lora.modules_to_save"),
        ("training.optimizer=adafactor", "training.optimizer=adafactor: packs have AdamW"),
        ("hardware.gradient_checkpointing=true", "hardware.gradient_checkpointing=true"),
        ("hardware.device_map=auto", "hardware.device_map=auto"),
    ],
)
def test_what_cannot_be_packed_says_which_setting(override: str, reason: str) -> None:
    assert str(why_alone(compose([*TINY, override]))).startswith(reason)


def test_padding_at_most_doubles_a_rank() -> None:
    buckets: dict[int, list[int]] = {}
    for rank in range(1, 300):
        buckets.setdefault(rank_bucket(rank), []).append(rank)
    assert all(max(ranks) <= 2 * min(ranks) for ranks in buckets.values())
    assert [rank_bucket(r) for r in (1, 2, 4, 8, 16, 32, 64)] == list(range(7))


def serve(
    source: Any, *, threads: int, slots: int, train: Any, expect: type[BaseException] | None = None
) -> tuple[list[list[int]], ThreadQueue]:
    """A pack without a model: fills its slots, 'trains' all for one round, answers those that `train` says end."""
    queue = ThreadQueue(threads)
    watched = WatchedSource(source, queue)

    def run(claim: Any, source: Any, handle_made: Any) -> Any:
        handle = SourceHandle(source, claim)
        ret = queue.submit(handle, list(claim.overrides), str(claim.number))
        return Outcome("complete", (float(ret.return_value),))

    def slot() -> None:
        work(watched, run, lease_s=60, on_end=lambda claim, outcome: None)

    workers = [threading.Thread(target=queue.run, args=(slot,), daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    rounds: list[list[int]] = []
    try:
        while (first := queue.next(block=True)) is not None:
            queue.open(slots)
            members = [first]
            while members:
                while len(members) < slots and (more := queue.next(block=False)) is not None:
                    members.append(more)
                rounds.append([request.number for request in members])
                for request in [m for m in members if train(m.number, len(rounds))]:
                    members.remove(request)
                    ret = JobReturn()
                    ret.return_value, ret.status = request.number, JobStatus.COMPLETED
                    queue.answer(request, ret)
    except BaseException as error:
        queue.stop(error if isinstance(error, Exception) else KeyboardInterrupt())
        if expect is None or not isinstance(error, expect):
            raise
    for worker in workers:
        worker.join(timeout=20)
        assert not worker.is_alive()
    return rounds, queue


def test_a_freed_slot_is_filled_before_the_next_pass() -> None:
    source = ListSource([[f"seed={i}"] for i in range(7)])
    rounds, _ = serve(source, threads=3, slots=3, train=lambda number, rounds: number % 2 == 0 or rounds % 3 == 0)
    assert all(len(members) == 3 for members in rounds[:-2])
    assert sorted(source.outcomes) == list(range(7))
    assert all(outcome.values == (float(number),) for number, outcome in source.outcomes.items())


def test_no_more_trials_are_claimed_than_there_are_slots() -> None:
    class Counting(ListSource):
        running = most = 0

        def claim(self) -> Any:
            claim = super().claim()
            if claim is not None:
                self.running += 1
                self.most = max(self.most, self.running)
            return claim

        def finish(self, claim: Any, outcome: Any) -> bool:
            self.running -= 1
            return super().finish(claim, outcome)

    source = Counting([[f"seed={i}"] for i in range(9)])
    rounds, _ = serve(source, threads=6, slots=2, train=lambda number, rounds: True)
    assert source.most == 2 and max(len(members) for members in rounds) == 2
    assert sorted(source.outcomes) == list(range(9))


def test_what_stops_one_thread_stops_all_and_gives_trials_back() -> None:
    class Breaking(ListSource):
        released: list[int] = []

        def claim(self) -> Any:
            if self._next == 3:
                raise UserError("the first 3 trials failed alike")
            return super().claim()

        def release(self, claim: Any) -> None:
            self.released.append(claim.number)

    source = Breaking([[f"seed={i}"] for i in range(9)])
    _, queue = serve(source, threads=3, slots=3, train=lambda number, rounds: number == 0, expect=UserError)
    assert sorted(source.released) == [1, 2] and list(source.outcomes) == [0]


def test_a_thread_that_finds_nothing_leaves_its_slot_to_others() -> None:
    """A study may have nothing to claim now and something later (a promoted trial)."""

    class Later(ListSource):
        begun_s = time.monotonic()

        def claim(self) -> Any:
            if self._next == 1 and time.monotonic() - self.begun_s < 0.3:
                return None
            return super().claim()

    source = Later([[f"seed={i}"] for i in range(2)])
    rounds, _ = serve(source, threads=2, slots=2, train=lambda number, rounds: True)
    assert rounds == [[0], [1]] and sorted(source.outcomes) == [0, 1]
