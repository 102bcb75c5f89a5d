"""Things a user should know but need not act on: said once a process, never silently skipped."""

from __future__ import annotations

import logging

logger = logging.getLogger("emotion_sweeps")
_said: set[str] = set()


def notice_once(text: str) -> None:
    """Log `text` as a warning the first time it comes up in this process."""
    if text not in _said:
        _said.add(text)
        logger.warning(text)
