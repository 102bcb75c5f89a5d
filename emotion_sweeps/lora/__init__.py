"""Adapters: which layers, how they start, how they are written to disk and come back."""
