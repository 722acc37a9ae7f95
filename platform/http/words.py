"""Names of calls as dotted words of the operations log: ``approveReview`` is ``approve_review``. Pure."""

import re
from typing import Final

_STEP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def snake(name: str) -> str:
    """Return a name in small letters, its words joined by underscores."""
    return _STEP.sub("_", name).lower()
