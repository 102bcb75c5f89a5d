"""Losses as per-example sums, so that any cut into micro-batches gives the mean over the global batch.

    loss = sum over the examples of the global batch of (example loss * share),  share = 1 / number of
    examples

Multi-label: mean over labels of BCE(logit, y (1 - e) + e / 2) with pos_weight on the positive term.
Single-label: -sum_c w_c q_c log p_c with q = y (1 - e) + e / num_labels, as torch's cross_entropy with
reduction="none". Focal loss (arXiv 1708.02002) multiplies each of these terms by (1 - p)^gamma, p being the
probability that the term takes the logarithm of; gamma = 0 is the plain loss. Tokens: the sum of the row's
token losses; the share is then 1 / number of supervised tokens of the global batch. All take leading
dimensions (`(num_trials, batch, num_labels)`), which is what lets a pack use them unchanged.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE = -100  # a token position that is not supervised
_CERTAIN = 1e-12  # -log p below which a class counts as certain: log(1 - p) has no gradient there


def _at_least_fp32(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def _is_off(gamma: float | Tensor) -> bool:
    return not isinstance(gamma, Tensor) and gamma == 0


def multilabel_losses(
    logits: Tensor,
    labels: Tensor,
    *,
    pos_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    focal_gamma: float | Tensor = 0.0,
) -> Tensor:
    """Binary cross-entropy of each example: mean over its labels.

    Args:
        logits: `(..., num_labels)`.
        labels: the same shape, 0 or 1.
        pos_weight: broadcastable to `logits`, weight of the positive term.
        focal_gamma: of the focal loss; a tensor broadcastable to `logits` gives each trial its own.
    Returns:
        `(...)`, one loss an example.
    """
    logits = _at_least_fp32(logits)
    targets = labels.to(logits.dtype) * (1 - label_smoothing) + label_smoothing / 2
    if _is_off(focal_gamma):
        losses = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=pos_weight, reduction="none")
        return losses.mean(-1)
    # In logarithms, so that neither the loss nor its gradient breaks down at probabilities of 0 or 1.
    log_yes, log_no = F.logsigmoid(logits), F.logsigmoid(-logits)
    positive = targets * torch.exp(focal_gamma * log_no) * log_yes
    negative = (1 - targets) * torch.exp(focal_gamma * log_yes) * log_no
    return -(positive * (1.0 if pos_weight is None else pos_weight) + negative).mean(-1)


def singlelabel_losses(
    logits: Tensor,
    labels: Tensor,
    *,
    class_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    focal_gamma: float | Tensor = 0.0,
) -> Tensor:
    """Cross-entropy of each example; `labels` are one-hot rows of the logits' shape."""
    logits = _at_least_fp32(logits)
    targets = labels.to(logits.dtype) * (1 - label_smoothing) + label_smoothing / logits.shape[-1]
    if class_weight is not None:
        targets = targets * class_weight
    log_p = torch.log_softmax(logits, dim=-1)
    if not _is_off(focal_gamma):
        log_others = torch.log(-torch.expm1(log_p.clamp(max=-_CERTAIN)))
        targets = targets * torch.exp(focal_gamma * log_others)
    return -(targets * log_p).sum(-1)


def token_losses(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Sum of the token losses of each row.

    Args:
        logits: `(batch, seq, vocab)`, position t scoring `targets[:, t]` (already shifted).
        targets: `(batch, seq)` token ids, `IGNORE` where nothing is supervised.
    Returns:
        `(batch,)`.
    """
    flat = _at_least_fp32(logits).flatten(0, 1)
    losses = F.cross_entropy(
        flat, targets.flatten(), ignore_index=IGNORE, label_smoothing=label_smoothing, reduction="none"
    )
    return losses.view_as(targets).sum(-1)


def token_hits(logits: Tensor, targets: Tensor) -> Tensor:
    """How many supervised tokens of each row the model's first choice meets, `(batch,)`."""
    return ((logits.argmax(-1) == targets) & (targets != IGNORE)).sum(-1)


def pos_weight_from_labels(labels: np.ndarray, mode: str, cap: float = 5.0) -> np.ndarray | None:
    """Weight of each label's positive term: negatives / positives, or its square root, at most `cap`.

    Args:
        labels: `(num_examples, num_labels)` multi-hot training labels; a label without positives counts as
            one.
        mode: none, sqrt or balanced.
    """
    if mode == "none":
        return None
    positives = labels.sum(0).astype(np.float64)
    ratio = (len(labels) - positives) / np.maximum(positives, 1)
    weights = np.minimum(np.sqrt(ratio) if mode == "sqrt" else ratio, cap)
    return np.asarray(weights, np.float32)


def class_weight_from_labels(labels: np.ndarray, mode: str, cap: float = 5.0) -> np.ndarray | None:
    """Weight of each class: n / (num_labels * count), or its square root, at most `cap`, mean 1 over the
    examples.

    Mean 1 keeps the loss and so the step size on the scale of the unweighted one.
    """
    if mode == "none":
        return None
    counts = labels.sum(0).astype(np.float64)
    ratio = len(labels) / (labels.shape[1] * np.maximum(counts, 1))
    weights = np.minimum(np.sqrt(ratio) if mode == "sqrt" else ratio, cap)
    return np.asarray(weights / ((weights * counts).sum() / len(labels)), np.float32)
