"""`python -m emotion_sweeps.train`: one run, or with -m a sweep.

Exit codes: 0 done, 1 a failure of ours or of a trial (with its traceback), 2 a mistake in config or input (one line).
Nothing heavy is imported until a run begins, so that --help and tab completion stay quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from emotion_sweeps.config.compose import to_conf
from emotion_sweeps.config.register import register
from emotion_sweeps.config.translate import as_user_error
from emotion_sweeps.errors import UserError
from emotion_sweeps.paths import conf_dir

register()


def train(cfg: DictConfig) -> float | dict[str, float]:
    """One trial: returns its best evaluation of the objective metric, by name where there are several."""
    conf = to_conf(cfg)
    from emotion_sweeps.trial.place import TrialPlace
    from emotion_sweeps.trial.run import run_trial

    place = TrialPlace.from_hydra(HydraConfig.get())
    try:
        return run_trial(conf, place)
    except UserError as mistake:
        if place.in_sweep:
            raise
        # Past Hydra's own report of the failed job, which would be a second line.
        print(f"error: {mistake}", file=sys.stderr)
        raise SystemExit(2) from None


_hydra_main = hydra.main(config_path=str(conf_dir()), config_name="train")(train)


def exit_code(call: Callable[[], object]) -> int:
    """Run `call`; a user's mistake becomes one line on stderr and 2, a success 0; our own failures propagate."""
    try:
        call()
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    except Exception as error:
        mistake = as_user_error(error)
        if mistake is None:
            raise
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    return 0


def run() -> None:
    """Check the command line's config, then hand over to Hydra."""
    from emotion_sweeps.preflight import check_command, parse_command, wants_info

    args = parse_command()
    if not wants_info(args):
        check_command(args)
    _hydra_main()


def main() -> None:
    """The command: check, run, and turn a user's mistake into one line and exit code 2."""
    # With this set Hydra hands errors on instead of printing them and exiting 1 (hydra/_internal/utils.py).
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if Path(sys.argv[0]).name == "train.py":
        sys.argv[0] = "emotion-sweeps-train"  # what Hydra's tab completion is installed for
    sys.exit(exit_code(run))


if __name__ == "__main__":
    main()
