"""Against torch's own losses and scikit-learn's class weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from emotion_sweeps.training.losses import (
    IGNORE,
    class_weight_from_labels,
    multilabel_losses,
    pos_weight_from_labels,
    singlelabel_losses,
    token_hits,
    token_losses,
)


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(12, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3


@pytest.fixture
def multi() -> torch.Tensor:
    return (torch.rand(12, 5, generator=torch.Generator().manual_seed(1)) < 0.4).to(torch.uint8)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_multilabel_is_torchs_bce_on_smoothed_targets(
    logits: torch.Tensor, multi: torch.Tensor, smoothing: float
) -> None:
    weight = torch.tensor([1.0, 2.0, 0.5, 5.0, 1.0], dtype=torch.float64)
    losses = multilabel_losses(logits, multi, pos_weight=weight, label_smoothing=smoothing)
    smoothed = multi.double() * (1 - smoothing) + smoothing / 2
    assert losses.shape == (12,)
    torch.testing.assert_close(losses.mean(), F.binary_cross_entropy_with_logits(logits, smoothed, pos_weight=weight))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_singlelabel_is_torchs_cross_entropy(logits: torch.Tensor, smoothing: float, weighted: bool) -> None:
    targets = torch.arange(12) % 5
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0], dtype=torch.float64) if weighted else None
    ours = singlelabel_losses(logits, F.one_hot(targets, 5), class_weight=weight, label_smoothing=smoothing)
    theirs = F.cross_entropy(logits, targets, weight=weight, label_smoothing=smoothing, reduction="none")
    torch.testing.assert_close(ours, theirs)


def test_a_stack_of_trials_gives_each_trials_own_losses(logits: torch.Tensor, multi: torch.Tensor) -> None:
    stacked, weights = torch.stack([logits, logits * 2]), torch.rand(2, 1, 5, dtype=torch.float64) + 0.5
    one_hot = F.one_hot(torch.arange(12) % 5, 5)
    both = multilabel_losses(stacked, multi.expand(2, -1, -1), pos_weight=weights)
    both_single = singlelabel_losses(stacked, one_hot.expand(2, -1, -1), class_weight=weights)
    for trial in (0, 1):
        alone = multilabel_losses(stacked[trial], multi, pos_weight=weights[trial, 0])
        torch.testing.assert_close(both[trial], alone)
        alone = singlelabel_losses(stacked[trial], one_hot, class_weight=weights[trial, 0])
        torch.testing.assert_close(both_single[trial], alone)


def test_losses_of_low_precision_logits_are_computed_in_fp32(logits: torch.Tensor, multi: torch.Tensor) -> None:
    half = logits.bfloat16()
    for losses in (multilabel_losses, singlelabel_losses):
        assert losses(half, multi).dtype == torch.float32
        torch.testing.assert_close(losses(half, multi), losses(half.float(), multi))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_token_losses_sum_each_rows_supervised_tokens(smoothing: float) -> None:
    logits = torch.randn(3, 4, 7)
    targets = torch.tensor([[1, 2, IGNORE, 3], [IGNORE, 0, IGNORE, IGNORE], [IGNORE] * 4])
    losses = token_losses(logits, targets, label_smoothing=smoothing)
    for row in range(2):
        kept = targets[row] != IGNORE
        theirs = F.cross_entropy(logits[row][kept], targets[row][kept], label_smoothing=smoothing, reduction="sum")
        torch.testing.assert_close(losses[row], theirs)
    assert losses[2] == 0


def test_token_hits_count_supervised_tokens_only() -> None:
    logits = F.one_hot(torch.tensor([[1, 2, 3], [0, 0, 0]]), 5).float()
    targets = torch.tensor([[1, 2, 4], [0, IGNORE, IGNORE]])
    assert token_hits(logits, targets).tolist() == [2, 1]


def test_pos_weight_is_negatives_over_positives_capped() -> None:
    labels = np.zeros((100, 4), np.uint8)
    labels[:50, 0] = labels[:10, 1] = labels[:1, 2] = 1
    balanced, root = pos_weight_from_labels(labels, "balanced", 20.0), pos_weight_from_labels(labels, "sqrt", 5.0)
    assert balanced is not None and root is not None
    np.testing.assert_allclose(balanced, [1, 9, 20, 20])
    np.testing.assert_allclose(root, [1, 3, 5, 5])
    assert pos_weight_from_labels(labels, "none") is None


def test_balanced_class_weights_are_scikit_learns() -> None:
    targets = np.array([0] * 40 + [1] * 30 + [2] * 30)
    weights = class_weight_from_labels(np.eye(3, dtype=np.uint8)[targets], "balanced")
    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.arange(3), y=targets), rtol=1e-6)


@pytest.mark.parametrize("mode", ["sqrt", "balanced"])
def test_class_weights_leave_the_losss_scale_alone(mode: str) -> None:
    targets = np.array([0] * 90 + [1] * 9 + [2])
    weights = class_weight_from_labels(np.eye(3, dtype=np.uint8)[targets], mode, 5.0)
    assert weights is not None
    assert weights[targets].mean() == pytest.approx(1)
    assert weights[0] < weights[1] <= weights[2]
    assert class_weight_from_labels(np.eye(3, dtype=np.uint8)[targets], "none") is None


def reference_focal_sigmoid(logits: torch.Tensor, targets: torch.Tensor, gamma: float) -> torch.Tensor:
    """torchvision.ops.sigmoid_focal_loss without alpha, as it is written there."""
    p = torch.sigmoid(logits)
    ce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    p_t = p * targets + (1 - p) * (1 - targets)
    return ce * ((1 - p_t) ** gamma)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_multilabel_focal_loss_is_torchvisions(logits: torch.Tensor, multi: torch.Tensor, gamma: float) -> None:
    losses = multilabel_losses(logits, multi, focal_gamma=gamma)
    torch.testing.assert_close(losses, reference_focal_sigmoid(logits, multi.double(), gamma).mean(-1))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_singlelabel_focal_loss_by_its_formula(logits: torch.Tensor, gamma: float) -> None:
    targets, weight = torch.arange(12) % 5, torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0], dtype=torch.float64)
    losses = singlelabel_losses(logits, F.one_hot(targets, 5), class_weight=weight, focal_gamma=gamma)
    p = torch.softmax(logits, -1)[range(12), targets]
    torch.testing.assert_close(losses, -weight[targets] * (1 - p) ** gamma * torch.log(p))


def test_focal_loss_in_closed_form() -> None:
    """At even odds every term is halved once per unit of gamma."""
    zeros, labels = torch.zeros(1, 2), torch.tensor([[1, 0]])
    for gamma in (0.0, 1.0, 3.0):
        wanted = torch.log(torch.tensor([2.0])) * 0.5**gamma
        torch.testing.assert_close(multilabel_losses(zeros, labels, focal_gamma=gamma), wanted)
        torch.testing.assert_close(singlelabel_losses(zeros, labels, focal_gamma=gamma), wanted)


@pytest.mark.parametrize("losses", [multilabel_losses, singlelabel_losses])
def test_focal_gamma_a_trial_and_zero_is_the_plain_loss(losses: Any, logits: torch.Tensor, multi: torch.Tensor) -> None:
    labels = multi if losses is multilabel_losses else F.one_hot(torch.arange(12) % 5, 5)
    gammas = torch.tensor([0.0, 2.0], dtype=torch.float64).view(2, 1, 1)
    options = {"label_smoothing": 0.1}
    both = losses(torch.stack([logits, logits]), labels.expand(2, -1, -1), focal_gamma=gammas, **options)
    torch.testing.assert_close(both[0], losses(logits, labels, **options))
    torch.testing.assert_close(both[1], losses(logits, labels, focal_gamma=2.0, **options))


@pytest.mark.parametrize("losses", [multilabel_losses, singlelabel_losses])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_gradients_stay_finite_where_the_model_is_certain(losses: Any, gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0], [0.1, 0.0]], requires_grad=True)
    labels = torch.tensor([[1, 0], [1, 0], [1, 0]])
    value = losses(logits, labels, focal_gamma=gamma, label_smoothing=0.1)
    value.sum().backward()
    assert torch.isfinite(value).all() and logits.grad is not None and torch.isfinite(logits.grad).all()
    assert value[0] < value[1]


@pytest.mark.parametrize("losses", [multilabel_losses, singlelabel_losses])
def test_focal_gradients_are_those_of_the_formula(losses: Any, logits: torch.Tensor, multi: torch.Tensor) -> None:
    labels = multi if losses is multilabel_losses else F.one_hot(torch.arange(12) % 5, 5)
    assert torch.autograd.gradcheck(lambda x: losses(x, labels, focal_gamma=1.5), logits.clone().requires_grad_())
