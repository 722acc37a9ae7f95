"""The contracts of imports hold, and each one finds what it forbids."""

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"

# One forbidden import a contract: contract, file to plant, and what it imports.
PLANTED = [
    ("ground", "clock.py", "import chukan.tenants"),
    ("replication", "replication/planted.py", "import chukan.tenants"),
    ("tenants", "tenants/planted.py", "import chukan.platform.flows"),
    ("vpn", "vpn/planted.py", "from chukan.platform.flows import inquiry"),
    ("platform", "platform/flows/planted.py", "import chukan.ops.cli"),
    ("asyncpg", "platform/flows/planted.py", "import asyncpg"),
    ("asyncpg", "ops/planted.py", "import asyncpg"),
    ("netlink", "tenants/planted.py", "import pyroute2"),
    ("flows", "platform/flows/planted.py", "import aiohttp"),
    ("tenants", "tenants/planted.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import chukan.ops.cli"),
]


def lint(folder: Path, *contracts: str) -> subprocess.CompletedProcess[str]:
    chosen = [word for contract in contracts for word in ("--contract", contract)]
    return subprocess.run(
        [sys.executable, "-c", LINT, "--no-logo", "--no-cache", *chosen],
        cwd=folder / "chukan",
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def copy(files: list[Path], root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package, into which imports may be planted."""
    folder = tmp_path_factory.mktemp("planted")
    for path in files:
        relative = path.relative_to(root)
        if path.suffix == ".py" and relative.parts[0] != "tests":
            (folder / "chukan" / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / "chukan" / relative)
    shutil.copyfile(root / ".importlinter", folder / "chukan" / ".importlinter")
    return folder


def test_every_contract_holds(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout


def test_every_contract_is_a_sentence_with_a_planted_violation(root: Path) -> None:
    contracts = configparser.ConfigParser()
    contracts.read(root / ".importlinter", encoding="utf-8")
    found = {
        section.rpartition(":")[2]: contracts[section]["name"] for section in contracts.sections() if ":" in section
    }
    assert set(found) == {contract for contract, _, _ in PLANTED}
    assert all(len(name.split()) >= 4 for name in found.values())


@pytest.mark.parametrize(("contract", "file", "text"), PLANTED, ids=lambda value: str(value).partition("\n")[0])
def test_a_contract_finds_a_planted_import(copy: Path, contract: str, file: str, text: str) -> None:
    path = copy / "chukan" / file
    before = path.read_text("utf-8") if path.exists() else None
    path.write_text(f"{before or ''}\n{text}\n", encoding="utf-8")
    try:
        done = lint(copy, contract)
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_text(before, encoding="utf-8")
    assert done.returncode == 1, done.stdout
    assert "BROKEN" in done.stdout
