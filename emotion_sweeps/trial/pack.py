"""A pack of trials: builds what they share, keeps the slots filled, writes each trial's run folder as if it ran alone.

Who may share a pack is decided from configs (`sweeps.packing`); here they meet the real model. The number of slots is
given, or found by a short probe of step time and memory (`training.packed.probe`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from torch import Tensor

from emotion_sweeps.config.schema import TrainConf
from emotion_sweeps.training.outcome import Outcome
from emotion_sweeps.training.packed.engine import PackEngine
from emotion_sweeps.training.packed.probe import choose_slots
from emotion_sweeps.training.packed.table import PackTable
from emotion_sweeps.training.packed.task import PackCounts
from emotion_sweeps.training.packed.trial import PackTrial
from emotion_sweeps.trial.artifacts import describe_device
from emotion_sweeps.trial.pack_base import CannotPack, PackBase, pack_base
from emotion_sweeps.trial.pack_trial import OpenTrial, PackJob, Value, finished_before

logger = logging.getLogger("emotion_sweeps")
NextJob = Callable[[], PackJob | None]
JobEnded = Callable[[PackJob, Value | Exception], None]

__all__ = ["CannotPack", "PackJob", "TrialPack"]


class TrialPack:
    """Trains the trials of one kind of pack.

    Args:
        conf: any of their configs.
        num_slots: trials at once; None probes.
        expected: how many trials are known to come; no more slots than that are made.
    Raises:
        CannotPack: they have to run alone.
        UserError: the input cannot be used.
    """

    def __init__(self, conf: TrainConf, *, num_slots: int | None, expected: int | None = None) -> None:
        self.shared: PackBase = pack_base(conf)
        self._max_rank, self._num_slots, self._expected = conf.lora.r, num_slots, expected
        self._micro_batch_size = min(conf.hardware.micro_batch_size, conf.training.global_batch_size)

    def run(
        self, next_job: NextJob, ended: JobEnded, on_slots: Callable[[int], None] = lambda slots: None
    ) -> PackCounts:
        """Train until no trial is left in the slots and `next_job` has none more.

        Args:
            on_slots: told the number of slots before the first trial is asked for.
        """
        table = PackTable()
        running: list[OpenTrial] = []
        engine: PackEngine

        def feed() -> PackTrial | None:
            while (job := next_job()) is not None:
                try:
                    done = finished_before(job)
                    if done is None:
                        running.append(OpenTrial(job, self.shared))
                        return running[-1].trial
                except Exception as error:
                    ended(job, error)
                else:
                    ended(job, done)
            return None

        def on_end(trial: PackTrial, end: Outcome | Exception, weights: dict[str, Tensor]) -> None:
            opened: OpenTrial = trial.token
            running.remove(opened)
            table.ended(opened.name, end)
            try:
                if isinstance(end, Exception):
                    opened.fail(end)
                    ended(opened.job, end)
                else:
                    ended(opened.job, opened.end(end, weights, engine.counts.most_slots))
            except Exception as error:  # its files could not be written: that trial's failure alone
                ended(opened.job, error)

        engine = self._engine(feed, on_end, table)
        on_slots(engine.num_slots)
        try:
            engine.run()
        except BaseException as error:  # interrupted: what was trained stays in the checkpoints
            for opened in running:
                opened.fail(error)
            raise
        finally:
            table.close()
        counts = engine.counts
        if counts.ticks:
            logger.info(
                f"pack: {counts.trials} trials in {counts.ticks} passes, "
                f"{counts.trial_ticks / counts.ticks:.1f} trials a pass, at most {counts.most_slots}"
            )
        return counts

    def _engine(self, feed: Any, on_end: Any, table: PackTable) -> PackEngine:
        shared, hardware = self.shared, self.shared.frozen.hardware
        pack = shared.pack(self._max_rank)
        slots = self._num_slots
        if slots is None:
            slots, reason = choose_slots(
                pack, shared.task, precision=hardware.precision, rows=self._micro_batch_size, limit=self._expected
            )
            logger.info(f"pack: {slots} slots ({reason})")
        logger.info(f"pack on {describe_device(hardware.device)}, {hardware.precision} ({hardware.reason})")
        return PackEngine(
            pack,
            shared.task,
            num_slots=slots,
            precision=hardware.precision,
            feed=feed,
            on_end=on_end,
            on_tick=table.tick,
        )
