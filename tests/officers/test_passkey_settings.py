"""Settings of passkeys: a domain and origins within it, or neither."""

import pytest

from chukan import settings
from chukan.errors import Problem
from chukan.settings import Officers


@pytest.mark.parametrize(
    ("domain", "origins", "pointer"),
    [
        ("console.example", [], "/officers/passkey_origins"),
        ("", ["https://console.example"], "/officers/passkey_domain"),
        ("console.example", ["http://console.example"], "/officers/passkey_origins/0"),
        ("console.example", ["https://console.example", "https://evil.test"], "/officers/passkey_origins/1"),
        ("console.example", ["https://notconsole.example"], "/officers/passkey_origins/0"),
        ("console.example", ["https://console.example/"], "/officers/passkey_origins/0"),
    ],
)
def test_origins_that_no_browser_would_let_use_the_domain_are_refused(
    domain: str, origins: list[str], pointer: str
) -> None:
    with pytest.raises(Problem) as caught:
        settings.check_officers(Officers(passkey_domain=domain, passkey_origins=origins))
    assert caught.value.pointer == pointer


def test_neither_or_both_are_taken() -> None:
    settings.check_officers(Officers())
    origins = ["https://console.example", "https://east.console.example:8443"]
    settings.check_officers(Officers(passkey_domain="console.example", passkey_origins=origins))
