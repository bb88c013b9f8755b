"""Notes on input that is used, though not all of it is, or not as it stands: a line each.

They go through `logging`, which shows them on standard error where nobody set it up, in worker processes, too.
"""

from __future__ import annotations

import logging
from functools import cache

_LOG = logging.getLogger("zoo")


@cache
def note(text: str) -> None:
    """Tells `text`, once in a process: whoever times a case reads it many times."""
    _LOG.warning("%s", text)
