"""Names: what the root's modules may be called, and what no file may mention."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

# In pieces, so that this file does not mention what it looks for.
REGISTRY_HOSTS = ["py" + "pi.org", "python" + "hosted.org", "npm" + "js.", "crates" + ".io", "docker" + ".io"]
MACHINE_PATHS = re.compile(
    "|".join([r"(?<![\w.$}])/wo" + r"rk/\w", r"(?<![\w.$}])/ro" + r"ot/\w", r"(?<![\w.$}])/ho" + r"me/\w"])
)
TEXT = {".py", ".sql", ".toml", ".md", ".txt", ".lock", ".json", ".yaml", ".yml", ".cfg", ".ini", ".j2", ".sh", ""}


def root_names(root: Path) -> set[str]:
    """Return the names that a module search from the root would find."""
    modules = {path.stem for path in root.glob("*.py")} - {"__init__"}
    packages = {path.name for path in root.iterdir() if path.is_dir() and path.name.isidentifier()}
    return modules | (packages - {"tests", "docs", "ansible", "var", "build", "dist"})


def test_no_name_at_the_root_is_taken(root: Path) -> None:
    taken = set(sys.stdlib_module_names) | set(importlib.metadata.packages_distributions())
    # `platform` is a room of ours; it has no __init__.py, so that the standard one is found first (next test).
    assert root_names(root) & taken - {"chukan"} == {"platform"}


@pytest.mark.parametrize("module", ["platform", "aiohttp", "pip"])
def test_modules_run_from_the_root_find_the_standard_platform(root: Path, module: str) -> None:
    probe = f"import {module}, platform; print(platform.__file__, platform.python_version())"
    # Without PYTHONSAFEPATH the working folder comes first on the path, as for anybody who runs Python here.
    done = subprocess.run(
        [sys.executable, "-c", probe],
        cwd=root,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found, version = done.stdout.rsplit(maxsplit=1)
    assert not Path(found).is_relative_to(root / "platform")
    assert version.startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")


def mentions(text: str) -> list[str]:
    """Return what a text mentions that depends on one machine or one registry."""
    found = [host for host in REGISTRY_HOSTS if host in text]
    return found + [match.group() for match in MACHINE_PATHS.finditer(text)]


def test_no_file_mentions_a_machine_or_a_registry(files: list[Path], root: Path) -> None:
    found = {
        path.relative_to(root).as_posix(): mentions(path.read_text("utf-8", errors="replace"))
        for path in files
        if path.suffix in TEXT
    }
    assert {name: hits for name, hits in found.items() if hits} == {}


def test_the_rule_of_mentions_finds_them() -> None:
    assert mentions("cd /wo" + "rk/main")
    assert mentions('open("/ho' + 'me/x")')
    assert mentions("https://" + REGISTRY_HOSTS[0] + "/simple")
    assert not mentions("/var/lib/chukan and ~/.config and $x/ho" + "me/x and net/wo" + "rk/x")


def test_the_lock_names_every_library_with_its_hashes(root: Path) -> None:
    lines = (root / "requirements.lock").read_text("utf-8").splitlines()
    entries = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert len(entries) > 30
    assert all(re.match(r"[a-z0-9-]+==[^ ]+( ; .+)? \\$", line) for line in entries)
    following = [lines[number + 1] for number, line in enumerate(lines) if line in entries]
    assert all(line.startswith("    --hash=sha256:") for line in following)


def test_the_lock_covers_what_the_project_asks_for(root: Path) -> None:
    locked = set(re.findall(r"^([a-z0-9-]+)==", (root / "requirements.lock").read_text("utf-8"), flags=re.MULTILINE))
    asked = {
        re.split(r"[\[<>=;! ]", requirement)[0].lower().replace("_", "-")
        for requirement in importlib.metadata.requires("chukan") or []
    }
    assert asked - locked == set()
