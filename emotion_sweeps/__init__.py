"""Sweeps of LoRA fine-tuning for emotion classifiers, ranked with their evidence.

Nothing heavy is imported here: `import emotion_sweeps` must stay quick for `--help` and tab completion.
"""

__version__ = "0.1.0"
