"""The law as it is shipped, loaded once: it is constant."""

import pytest

from chukan.platform.law import Law


@pytest.fixture(scope="session")
def law() -> Law:
    return Law.load()
