"""A site of three authorities with its lists, for what its servers do with revoked certificates."""

from collections.abc import Iterator

import pytest

from chukan.tests.support import tls_world


@pytest.fixture
def town() -> Iterator[tls_world.World]:
    with tls_world.world() as made:
        yield made
