"""A worker process: reads what to do from its standard input, works, and ends when its parent is gone.

Exit codes: 0 done, 2 a message for the user is in the report file, 143 asked to stop, else a traceback on stderr.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import threading
from typing import Any

from emotion_sweeps.errors import UserError


def _read_payload() -> dict[str, Any]:
    size = int.from_bytes(sys.stdin.buffer.read(8), "big")
    outer: dict[str, Any] = pickle.loads(sys.stdin.buffer.read(size))
    sys.path[:] = outer["path"]  # before the body, which may need modules beside the user's script
    inner: dict[str, Any] = pickle.loads(outer["body"])
    return inner


def _end_with_parent() -> None:
    """The parent never writes again: the end of the pipe is its end."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """Work until the study has no trial left."""
    state = _read_payload()
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.singleton import Singleton
    from hydra.core.utils import configure_log, setup_globals

    from emotion_sweeps.sweeps.worker import Terminated
    from emotion_sweeps.sweeps.worker_spec import run_worker

    spec = state["spec"]
    setup_globals()
    Singleton.set_state(state["singletons"])
    HydraConfig.instance().set_config(spec.config)
    whitelist = getattr(spec.context, "execution_whitelist", None)
    configure_log(spec.config.hydra.hydra_logging, spec.config.hydra.verbose, execution_whitelist=whitelist)
    try:
        run_worker(spec)
    except UserError as error:
        state["report"].write_text(json.dumps({"error": str(error)}), encoding="utf-8")
        return 2
    except (KeyboardInterrupt, Terminated):
        return 128 + signal.SIGTERM
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the watching thread sits in a read that an orderly exit would wait for
