"""Seeds: one number a trial, and stable sub-seeds for the parts that draw from their own stream.

`derive(seed, *names)` is the first 31 bits of sha256("seed/name/name"), so a part's stream does not move when
another part is added. `seed_everything` must run before the adapter and the head are created, or equal seeds
give different runs.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def derive(seed: int, *names: str | int) -> int:
    """A sub-seed in [0, 2**31) for the part called `names`."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seed the global generators of python, numpy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
