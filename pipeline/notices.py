"""What a user should know, said in sentences: to whoever listens, else to the standard library's logging.

The logger `promptmill` also gets the events of a run (`runners/runlog.py`), so a program that uses this package as a
library can send both where it likes.
"""

import logging
from collections.abc import Callable

LOGGER = logging.getLogger("promptmill")
Notify = Callable[[str], None]
"""Hears a sentence."""


def log_notice(text: str) -> None:
    """Hand a notice to the logger `promptmill`, which shows it on stderr unless a program has set up its own."""
    LOGGER.warning("%s", text)
