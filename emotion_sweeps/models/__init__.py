"""Frozen bases: where they come from, class heads on them, 4-bit weights, tiny stand-ins, the baseline."""
