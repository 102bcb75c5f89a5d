"""Losses, schedules, metrics and the solo engine: one trial from token rows to an outcome."""
