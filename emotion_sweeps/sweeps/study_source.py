"""`TrialSource` over an Optuna study: every configuration once, across threads, processes and machines.

A claim is made under the study's mutex: read all trials, decide what comes next, write one trial whole (or take over
one whose worker is gone). Whoever is killed meanwhile leaves either nothing or a complete, claimed trial behind. In
order: trials of dead workers, paused trials that a pruner promotes, failed trials of an earlier start, known
configurations, the next cell of a finite space or the sampler's next suggestion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from emotion_sweeps.errors import UserError
from emotion_sweeps.sweeps import leases, ledger
from emotion_sweeps.sweeps.ledger import Cell
from emotion_sweeps.sweeps.pruning import Decision, Pruner
from emotion_sweeps.sweeps.pruning.wilcoxon import Wilcoxon
from emotion_sweeps.sweeps.reports import Reports
from emotion_sweeps.sweeps.search import Proposal, Propose, Search
from emotion_sweeps.sweeps.source import Claim, Outcome
from emotion_sweeps.sweeps.storage import OpenStorage, storage_errors

STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "infeasible": TrialState.FAIL,
}


class StudySource:
    """Hands out the trials of one study.

    Args:
        identify: the identity of a cell's overrides (composes its config).
        distributions: of the space, by parameter name.
        propose: a sampler's next suggestion given all trials, the next number and the identities that are taken.
    """

    def __init__(
        self,
        study: optuna.Study,
        opened: OpenStorage,
        search: Search,
        pruner: Pruner | None,
        identify: Callable[[Sequence[str]], str],
        distributions: Mapping[str, Any],
        propose: Propose | None = None,
    ) -> None:
        self._study, self._opened, self._search = study, opened, search
        self._pruner, self._identify, self._propose = pruner, identify, propose
        self._distributions = dict(distributions)
        self._storage, self._study_id = study._storage, study._study_id
        self._reports = Reports(study._storage, search.metrics)
        self._identities: dict[tuple[str, ...], str] = {}
        self._done = False
        self.name: str | None = study.study_name

    # claiming

    def claim(self) -> Claim | None:
        """The next trial for a free slot, None when there is none just now."""
        with storage_errors(self._opened.shown), self._opened.mutex.held() as still_held:
            trials = self.trials()
            counting = ledger.counting(trials, self._search.retry)
            self._stop_on_identical_failures(counting)
            claim = self._orphan(trials) or self._promoted(trials, still_held) or self._fresh(trials, still_held)
            self._done = claim is None and not any(map(ledger.is_running, trials))
            return claim

    def done(self) -> bool:
        """Whether the last `claim` found nothing to hand out and nothing running anywhere."""
        return self._done

    @property
    def study(self) -> optuna.Study:
        """The study."""
        return self._study

    def trials(self) -> list[FrozenTrial]:
        """All trials of the study; not to be changed."""
        return self._storage.get_all_trials(self._study_id, deepcopy=False)

    def _stop_on_identical_failures(self, counting: Sequence[FrozenTrial]) -> None:
        first = ledger.identical_failures(counting, self._search.max_identical_failures)
        if first is None:
            return
        error = first.user_attrs.get(ledger.ERROR) or {}
        raise UserError(
            f"the first {self._search.max_identical_failures} trials failed alike and the sweep stops "
            f"(sweep.max_identical_failures): {error.get('class')}: {error.get('message')}; the traceback is in "
            f"error.txt in the folder of trial {first.number}"
        )

    def _orphan(self, trials: Sequence[FrozenTrial]) -> Claim | None:
        now = self._opened.now()
        for trial in trials:
            if ledger.is_running(trial) and leases.is_orphan(trial.system_attrs, now, self._search.lease_s):
                if ledger.OVERRIDES not in trial.user_attrs:
                    continue  # not one of ours
                deaths = leases.deaths_in_run(trial.system_attrs.get(leases.CLAIM_KEY), self._search.run_id)
                claim = self._take(trial, now, deaths)
                if deaths < self._search.max_deaths:
                    return claim
                message = f"{deaths} workers died with this trial (killed, perhaps for memory)"
                self.finish(claim, Outcome("failed", None, "WorkerDied", message))
        return None

    def _promoted(self, trials: Sequence[FrozenTrial], still_held: Callable[[], Any]) -> Claim | None:
        if self._pruner is None or not any(map(ledger.is_paused, trials)):
            return None
        board = ledger.board(trials, self.unstarted(trials))
        for number in sorted(self._pruner.dropped(board)):
            self._prune_paused(next(t for t in trials if t.number == number))
        board = ledger.board(self.trials(), board.unstarted)
        promoted = self._pruner.promote(board)
        if promoted is None:
            return None
        still_held()
        return self._take(next(t for t in trials if t.number == promoted), self._opened.now())

    def _prune_paused(self, trial: FrozenTrial) -> None:
        best = self._best(list(trial.intermediate_values.values()))
        self._storage.set_trial_state_values(trial._trial_id, TrialState.PRUNED, None if best is None else [best])

    def _best(self, values: Sequence[float]) -> float | None:
        finite = [v for v in values if math.isfinite(v)]
        if not finite:
            return None
        return max(finite) if self._maximize else min(finite)

    @property
    def _maximize(self) -> bool:
        return self._study.directions[0] == optuna.study.StudyDirection.MAXIMIZE

    def _take(self, trial: FrozenTrial, now: float, deaths: int = 0) -> Claim:
        """Take over a trial that was begun before, with the same number and parameters."""
        before = trial.system_attrs.get(leases.CLAIM_KEY) or {"attempt": 0}
        attempt = int(before["attempt"]) + 1
        mark = leases.new_claim(now, attempt, self._search.run_id, deaths)
        self._storage.set_trial_system_attr(trial._trial_id, leases.CLAIM_KEY, mark)
        return Claim(
            trial.number,
            tuple(trial.user_attrs[ledger.OVERRIDES]),
            attempt,
            trial._trial_id,
            ledger.replicate_values(trial.user_attrs),
        )

    def _fresh(self, trials: Sequence[FrozenTrial], still_held: Callable[[], Any]) -> Claim | None:
        retry = sorted(self._search.retry & ledger.failed(trials))
        if retry:
            old = next(t for t in trials if t.number == retry[0])
            cell = Cell(dict(old.params), tuple(old.user_attrs[ledger.OVERRIDES]), old.user_attrs.get(ledger.IDENTITY))
            return self._create(Proposal(cell, dict(old.distributions)), still_held, {ledger.RETRY_OF: old.number})
        counting = ledger.counting(trials, self._search.retry)
        if self._search.total is not None and len(counting) >= self._search.total:
            return None
        identities, keys = ledger.taken(counting)
        for cell in (*self._search.known, *(self._search.cells or ())):
            found = self._untaken(cell, identities, keys)
            if found is not None:
                return self._create(Proposal(found, self._distributions), still_held)
        if self._propose is None:
            return None
        proposal = self._propose(trials, len(trials), identities)
        return None if proposal is None else self._create(proposal, still_held)

    def _untaken(self, cell: Cell, identities: set[str], keys: set[tuple[str, ...]]) -> Cell | None:
        if cell.overrides in keys:
            return None
        found = cell.identity or self._identity(cell.overrides)
        return None if found in identities else Cell(cell.params, cell.overrides, found)

    def _identity(self, overrides: tuple[str, ...]) -> str:
        if overrides not in self._identities:
            self._identities[overrides] = self._identify(overrides)
        return self._identities[overrides]

    def _create(
        self, proposal: Proposal, still_held: Callable[[], Any], marks: Mapping[str, Any] | None = None
    ) -> Claim:
        cell, now = proposal.cell, self._opened.now()
        identity = cell.identity or self._identity(cell.overrides)
        mark = leases.new_claim(now, 1, self._search.run_id)
        template = FrozenTrial(
            number=-1, trial_id=-1, state=TrialState.RUNNING, value=None, values=None, datetime_start=datetime.now(),
            datetime_complete=None, params=dict(cell.params),
            distributions={name: proposal.distributions[name] for name in cell.params},
            user_attrs={ledger.OVERRIDES: list(cell.overrides), ledger.IDENTITY: identity, **(marks or {})},
            system_attrs={**proposal.system_attrs, leases.CLAIM_KEY: mark}, intermediate_values={},
        )  # fmt: skip
        still_held()
        trial_id = self._storage.create_new_trial(self._study_id, template)
        return Claim(self._storage.get_trial_number_from_id(trial_id), cell.overrides, 1, trial_id)

    def unstarted(self, trials: Sequence[FrozenTrial]) -> int:
        """Trials that the study will still start."""
        counting = ledger.counting(trials, self._search.retry)
        pending = len(self._search.retry & ledger.failed(trials))
        if self._search.total is not None:
            return pending + max(0, self._search.total - len(counting))
        identities, keys = ledger.taken(counting)
        cells = (*self._search.known, *(self._search.cells or ()))
        return pending + sum(
            c.overrides not in keys and (c.identity or self._identities.get(c.overrides)) not in identities
            for c in cells
        )

    # while it runs

    def report(self, claim: Claim, step: int, epoch: float, metrics: Mapping[str, float]) -> None:
        """Keep one evaluation."""
        with storage_errors(self._opened.shown):
            self._reports.evaluation(claim, self._trial_id(claim), step, epoch, metrics)

    def _trial_id(self, claim: Claim) -> int:
        if claim.trial_id >= 0:
            return claim.trial_id
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, claim.number)

    def decide(self, claim: Claim) -> Decision:
        """What the pruner says after the last report; with replicates it is asked between them instead."""
        if self._pruner is None or self._search.replicates > 1:
            return Decision.GO
        return self._ask_pruner(claim)

    def _ask_pruner(self, claim: Claim) -> Decision:
        assert self._pruner is not None
        with storage_errors(self._opened.shown):
            trials = self.trials()
            return self._pruner.decide(claim.number, ledger.board(trials, self.unstarted(trials)))

    def replicate(self, claim: Claim, index: int, values: Sequence[float]) -> Decision:
        """Keep one replicate's values; its mean so far (wilcoxon: its own value) is the pruner's evaluation."""
        with storage_errors(self._opened.shown):
            own = isinstance(self._pruner, Wilcoxon)
            self._reports.replicate(self._trial_id(claim), index, values, own=own)
        return Decision.GO if self._pruner is None else self._ask_pruner(claim)

    def renew(self, claim: Claim) -> bool:
        """Write a heartbeat; False when the trial is another worker's by now."""
        with storage_errors(self._opened.shown):
            trial_id = self._trial_id(claim)
            if not self._is_mine(claim, trial_id):
                return False
            try:
                self._storage.set_trial_system_attr(trial_id, leases.beat_key(claim.attempt), self._opened.now())
            except UpdateFinishedTrialError:
                return False
            return True

    def _is_mine(self, claim: Claim, trial_id: int) -> bool:
        trial = self._storage.get_trial(trial_id)
        mark = trial.system_attrs.get(leases.CLAIM_KEY)
        return ledger.is_running(trial) and mark is not None and int(mark["attempt"]) == claim.attempt

    # the end

    def finish(self, claim: Claim, outcome: Outcome) -> bool:
        """Write how the trial ended; False when it is another worker's by now."""
        with storage_errors(self._opened.shown), self._opened.mutex.held():
            trial_id = self._trial_id(claim)
            if not self._is_mine(claim, trial_id):
                return False
            if outcome.status == "paused":
                self._mark(claim, trial_id, "paused")
                return True
            if outcome.status in ("failed", "infeasible"):
                error = {"class": outcome.error_class, "message": outcome.error_message}
                self._storage.set_trial_user_attr(trial_id, ledger.STATUS, outcome.status)
                self._storage.set_trial_user_attr(trial_id, ledger.ERROR, error)
            values = None if outcome.values is None else [float(v) for v in outcome.values]
            self._storage.set_trial_state_values(trial_id, STATES[outcome.status], values)
            return True

    def join(self, number: int) -> Claim:
        """The claim of a trial that this process was launched to run; its death is the worker's from now on."""
        with storage_errors(self._opened.shown), self._opened.mutex.held():
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
            trial = self._storage.get_trial(trial_id)
            mark = trial.system_attrs[leases.CLAIM_KEY]
            claim = Claim(number, tuple(trial.user_attrs[ledger.OVERRIDES]), int(mark["attempt"]), trial_id)
            self._mark(claim, trial_id, "running")
            return claim

    def leave(self, claim: Claim) -> None:
        """Let go of a joined trial, whose launcher tells how it ended: from now on only silence is a death."""
        with storage_errors(self._opened.shown), self._opened.mutex.held():
            trial_id = self._trial_id(claim)
            if self._is_mine(claim, trial_id):
                self._mark(claim, trial_id, "running", process=None)

    def release(self, claim: Claim) -> None:
        """Give an unfinished trial back at once."""
        with storage_errors(self._opened.shown), self._opened.mutex.held():
            trial_id = self._trial_id(claim)
            if self._is_mine(claim, trial_id):
                self._mark(claim, trial_id, "released")

    def _mark(self, claim: Claim, trial_id: int, state: str, **changes: Any) -> None:
        mark = {**leases.new_claim(self._opened.now(), claim.attempt, self._search.run_id), "state": state, **changes}
        self._storage.set_trial_system_attr(trial_id, leases.CLAIM_KEY, mark)
