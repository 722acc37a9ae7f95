"""The specifications in docs/ are what the data says."""

import pytest

from chukan.ops.specs import RENDERED, ROOT


@pytest.mark.parametrize("name", sorted(RENDERED))
def test_the_rendered_specification_is_up_to_date(name):
    assert (ROOT / name).read_text(encoding="utf-8") == RENDERED[name](), "run `./chukan specs write`"
