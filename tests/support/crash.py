"""An operator's machine that dies before or after a step."""

from typing import Any

import pytest


class CrashError(Exception):
    """The operator's machine died."""


def crash(patch: pytest.MonkeyPatch, step: tuple[Any, str], moment: str, call: int = 1) -> None:
    """Die ``before`` or ``after`` the ``call``-th call of a step, which is an owner and a name."""
    owner, name = step
    real = getattr(owner, name)
    left = call

    async def dying(*values: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0 and moment == "before":
            raise CrashError
        done = await real(*values, **named)
        if left == 0:
            raise CrashError
        return done

    patch.setattr(owner, name, dying)
