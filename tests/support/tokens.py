"""Two PKCS#11 tokens of SoftHSM in a folder of a test's own, which can be taken away and given back."""

import os
import subprocess
from pathlib import Path

from chukan.settings import KeyToken

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "73915-pin"
CENTRES = ("east", "west")
_CONF = """directories.tokendir = {tokens}
objectstore.backend = file
log.level = ERROR
slots.removable = false
"""


class Tokens:
    """The tokens ``east`` and ``west``; processes find them by SOFTHSM2_CONF, which the fixture sets to ``conf``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tokens").mkdir(parents=True)
        (folder / "away").mkdir()
        self.conf = folder / "softhsm2.conf"
        self.conf.write_text(_CONF.format(tokens=folder / "tokens"), encoding="utf-8")
        self._places: dict[str, Path] = {}
        for centre in CENTRES:
            before = set((folder / "tokens").iterdir())
            self._util("--init-token", "--free", "--label", centre, "--pin", PIN, "--so-pin", "so-pin-1")
            (self._places[centre],) = set((folder / "tokens").iterdir()) - before
            self.set_pin(centre, PIN)

    def _util(self, *words: str) -> None:
        environment = {**os.environ, "SOFTHSM2_CONF": str(self.conf)}
        subprocess.run(["/usr/bin/softhsm2-util", *words], env=environment, check=True, capture_output=True, timeout=20)

    def settings(self, centre: str) -> KeyToken:
        return KeyToken(module=MODULE, token=centre, pin_file=self.pin_file(centre))

    def pin_file(self, centre: str) -> Path:
        return self.folder / f"pin-{centre}"

    def set_pin(self, centre: str, pin: str) -> None:
        """Replace the PIN file, as an operator would."""
        aside = self.folder / "pin.new"
        aside.touch(0o600)
        aside.write_text(pin + "\n", encoding="utf-8")
        aside.rename(self.pin_file(centre))

    def take(self, centre: str) -> None:
        """Take a token away, sessions and all, as when an HSM is cut off."""
        self._places[centre].rename(self.folder / "away" / centre)

    def give_back(self, centre: str) -> None:
        (self.folder / "away" / centre).rename(self._places[centre])
