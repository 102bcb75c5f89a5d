"""A 95 % interval for macro-F1 from resampled texts.

Each resample draws as many texts as there are, with replacement; macro-F1 is computed from weighted counts, so that
1,000 resamples of N texts and L labels cost one (1,000 x N) by (N x L) product: 0.3 s for 10,000 texts. Percentile
interval (Efron 1979). It covers which texts were drawn, not which seed was.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
_CHUNK = 50


def macro_f1_interval(
    predicted: NDArray[np.uint8], gold: NDArray[np.uint8], *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float] | None:
    """The 2.5 % and 97.5 % quantiles over resamples of the rows, None below two rows.

    Args:
        predicted: `(num_examples, num_labels)` multi-hot, as `gold`.
    """
    if len(gold) < 2:
        return None
    rng = np.random.default_rng(seed)
    hits = (predicted & gold).astype(np.float64)
    sums = predicted.astype(np.float64) + gold.astype(np.float64)
    values = []
    for start in range(0, resamples, _CHUNK):
        drawn = rng.multinomial(len(gold), np.full(len(gold), 1 / len(gold)), size=min(_CHUNK, resamples - start))
        both, either = 2 * drawn @ hits, drawn @ sums
        values.append(np.divide(both, either, out=np.zeros_like(both), where=either > 0).mean(1))
    low, high = np.quantile(np.concatenate(values), [0.025, 0.975])
    return float(low), float(high)
