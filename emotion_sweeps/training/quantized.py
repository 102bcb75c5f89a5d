"""4-bit layers that stay differentiable on the CPU (see `models.quantization`)."""

from emotion_sweeps.models.quantization import keep_differentiable

__all__ = ["keep_differentiable"]
