"""What is in the repository is in the distribution: packages without ``__init__.py`` would be left out."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = {
    ROOT / "tokenmesh": "tokenmesh",
    ROOT / "chaincode" / "tokenmesh_chaincode": "tokenmesh_chaincode",
    ROOT / "benchmarks": "tokenmesh_benchmarks",
}
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
FOLDERS = {"tokenmesh_chaincode": "chaincode/tokenmesh_chaincode"}


def test_every_module_lies_in_a_package_that_is_named() -> None:
    """pyproject.toml names the packages one by one; a module in another folder would be left out."""
    packages = set()
    for source, root in SOURCES.items():
        for folder in {path.parent for path in source.rglob("*.py")}:
            assert (folder / "__init__.py").exists(), f"{folder} has no __init__.py"
            packages.add(".".join([root, *folder.relative_to(source).parts]))
    assert packages == set(SETTINGS["packages"])


def test_every_other_file_is_named_as_package_data() -> None:
    """A template or a profile that is not named in pyproject.toml would be missing from the wheel."""
    named = {
        path.resolve()
        for package, patterns in SETTINGS["package-data"].items()
        for pattern in patterns
        for path in (ROOT / FOLDERS.get(package, package.replace(".", "/"))).glob(pattern)
        if path.is_file()
    }
    others = {
        path.resolve()
        for source in [*SOURCES, ROOT / "chaincode" / "network"]
        for path in source.rglob("*")
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    }
    assert others == named


def test_the_benchmarks_are_importable_as_they_are_installed() -> None:
    for module in ("embedded_ledger", "hot_path"):
        assert callable(importlib.import_module(f"tokenmesh_benchmarks.{module}").measure)


def test_every_entry_point_leads_to_something() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    points = [*project["scripts"].values()]
    for group in project["entry-points"].values():
        points += group.values()
    for point in points:
        module, _, name = point.partition(":")
        found = importlib.import_module(module)
        assert not name or hasattr(found, name)
