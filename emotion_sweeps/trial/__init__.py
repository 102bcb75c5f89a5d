"""One trial: from a checked config (`place`, `run`) to a run folder. Config dataclasses stop here."""

import logging

# Said at every start, whether 4-bit is used or not: an optional kernel package for 4-bit on CPUs is not installed.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
