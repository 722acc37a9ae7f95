"""The wheel holds the whole tree and nothing else, and works where it is installed."""

import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOMS = ("replication", "tenants", "vpn", "platform", "ops")
BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def shipped(files: list[Path], root: Path) -> list[str]:
    """What must be in the wheel: the ground, and every file of every room, by its path from the root."""
    relative = [path.relative_to(root) for path in files]
    ground = [
        path
        for path in relative
        if len(path.parts) == 1 and (path.suffix == ".py" or path.name in {"errors.toml", "py.typed"})
    ]
    return sorted(path.as_posix() for path in [*ground, *(path for path in relative if path.parts[0] in ROOMS)])


@pytest.fixture(scope="module")
def wheel(shipped: list[str], root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build leaves folders behind."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in [*shipped, *(name for name in BUILT_FROM if (root / name).exists())]:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, copy / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (built,) = out.glob("*.whl")
    return built


def test_every_folder_of_a_room_is_listed_as_a_package(shipped: list[str], root: Path) -> None:
    listed = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    folders = {".".join(["chukan", *Path(name).parent.parts]) for name in shipped}
    assert sorted(folders - set(listed)) == [], "add these to [tool.setuptools] packages in pyproject.toml"
    assert sorted(set(listed) - folders) == [], "these folders are gone"
    assert listed == sorted(listed)


def test_the_wheel_holds_the_tree_and_nothing_else(wheel: Path, shipped: list[str]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {f"chukan/{name}" for name in shipped}
    assert sorted(expected - inside) == [], "missing in the wheel"
    assert sorted(inside - expected) == [], "slipped into the wheel"


def test_the_wheel_works_elsewhere(wheel: Path, shipped: list[str], tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*pip, "--target", str(site), str(wheel)], check=True, timeout=120)
    modules = [
        name.removesuffix(".py").replace("/", ".") for name in shipped if name.count("/") == 0 and name.endswith(".py")
    ]
    probe = f"""
import importlib, json, pathlib, sys
sys.path.insert(0, {str(site)!r})
for name in {[m for m in modules if m != "__init__"]!r}:
    importlib.import_module(f"chukan.{{name}}")
import chukan.ops.cli, chukan.errors, importlib.resources
data = sorted(str(path) for path in pathlib.Path(chukan.__file__).parent.rglob("*.sql"))
print(json.dumps([chukan.__file__, chukan.errors.REGISTRY["no_code"].title_en, len(data)]))
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", probe], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    file, title, scripts = json.loads(done.stdout)
    assert Path(file) == site / "chukan" / "__init__.py"
    assert title == "This addressee number has no linkage code"
    assert scripts == sum(name.endswith(".sql") for name in shipped)
