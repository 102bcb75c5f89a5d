"""One trial: from a checked config to a run folder. Config dataclasses stop here."""

import logging

# Said at every start, whether 4-bit is used or not: an optional kernel package for 4-bit on CPUs is not installed.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

from emotion_sweeps.trial.place import TrialPlace  # noqa: E402
from emotion_sweeps.trial.run import run_trial  # noqa: E402

__all__ = ["TrialPlace", "run_trial"]
