"""Searches that several tests run."""

MISSION = ("lora.r=16,24,32", "scheduler=linear,cosine")
FOUR = ("lora.r=16,24", "scheduler=linear,cosine")
