"""The folders of the package: who imports whom, what they export, how long files are."""

import ast
import inspect
import os
import pkgutil
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pyro_vae"

ALLOWED = {
    "nets": set(),
    "data": set(),
    "families": {"nets"},
    "programs": {"nets"},
    "objectives": {"programs"},
    "inference": {"nets", "objectives", "programs"},
    "models": {"families", "nets", "programs"},
    "evaluation": {"families", "models", "objectives", "programs"},
    "training": {
        *("data", "evaluation", "families", "inference", "models", "nets"),
        *("objectives", "programs"),
    },
    "plots": {"data", "evaluation", "families", "models", "programs", "training"},
    "experiments": {
        *("data", "evaluation", "families", "inference", "models", "nets"),
        *("objectives", "plots", "programs", "training"),
    },
}
"""The folders that each folder may import."""

TOP = set(ALLOWED) - {"experiments", "plots"}
"""The folders that ``pyro_vae/__init__.py`` may import."""

DISTRIBUTED = {"inference/distributed.py"}
"""The modules that may call ``torch.distributed``."""

LONG_FILES: set[str] = set()  # over 250 lines; this list may only shrink
SAME_NAME: dict[str, set[str]] = {}  # this list may only shrink

FOLDERS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
MODULES = sorted(PACKAGE.rglob("*.py"))
SOURCES = [*MODULES, *sorted((ROOT / "scripts").rglob("*.py"))]


def name_of(path):
    """The name "pyro_vae.folder.module"; of a package, its own name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path):
    """The absolute names of the modules and objects that a file imports."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*start, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def folders_imported(path):
    names = (name.split(".") for name in imported(path))
    return {name[1] for name in names if name[0] == "pyro_vae" and len(name) > 1}


def folder_of(path):
    inside = path.relative_to(PACKAGE).parts
    return inside[0] if len(inside) > 1 else None


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_only_allowed_folders(path):
    folder = folder_of(path)
    allowed = TOP if folder is None else ALLOWED[folder] | {folder}
    assert folders_imported(path) & set(FOLDERS) <= allowed


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_inside_the_package_imports_are_relative(path):
    tree = ast.parse(path.read_text())
    absolute = [
        node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level
    ]
    assert not [node.module for node in absolute if node.module.split(".")[0] == "pyro_vae"]


def test_every_folder_is_in_the_table():
    assert set(FOLDERS) == set(ALLOWED)


def test_no_circle_of_folders():
    assert len([*TopologicalSorter(ALLOWED).static_order()]) == len(ALLOWED)


def test_nobody_imports_the_experiments():
    assert not [folder for folder, allowed in ALLOWED.items() if "experiments" in allowed]
    assert "experiments" not in TOP


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_states_what_it_is_and_exports(folder):
    package = import_module(f"pyro_vae.{folder}")
    assert package.__doc__
    assert "May import" in package.__doc__
    assert package.__all__ == sorted(set(package.__all__), key=package.__all__.index)
    assert all(hasattr(package, name) for name in package.__all__)


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_docstring_of_a_folder_agrees_with_the_table(folder):
    """The sentence "May import: a, b." names allowed folders, "everything" or "nothing"."""
    stated = import_module(f"pyro_vae.{folder}").__doc__.split("May import:")[1].split(".")[0]
    names = {name.split()[0] for name in stated.split(",")}
    assert names <= ALLOWED[folder] or names in ({"everything"}, {"nothing"})


@pytest.mark.parametrize("package", ["pyro_vae", *(f"pyro_vae.{folder}" for folder in FOLDERS)])
def test_no_module_has_the_name_of_something_exported(package):
    known, package = SAME_NAME.get(package, set()), import_module(package)
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert modules & set(package.__all__) == known
    assert not [name for name in package.__all__ if inspect.ismodule(getattr(package, name))]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_one_module_calls_torch_distributed(path):
    tree = ast.parse(path.read_text())
    attributes = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names = {*imported(path), *attributes}
    called = any(f"{name}.".startswith("torch.distributed.") for name in names)
    assert called == (path.relative_to(PACKAGE).as_posix() in DISTRIBUTED)


def too_long(path):
    return len(path.read_text().splitlines()) > 250


def test_length_of_files():
    """Exceptions are listed above; one that is mended, or gone, must leave the list.

    The length of lines is checked by ruff (E501).
    """
    assert {path.relative_to(ROOT).as_posix() for path in SOURCES if too_long(path)} == LONG_FILES


@pytest.mark.slow
def test_install_holds_every_folder(tmp_path):
    """Installed without ``-e``: all modules import from the copy, and the types are marked."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    copy, target = tmp_path / "source", tmp_path / "target"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "pyro_vae"):
        (copy / name).symlink_to(ROOT / name)
    subprocess.run([*pip, "--no-index", "--target", str(target), str(copy)], check=True)
    names = sorted({name_of(path) for path in MODULES})
    code = f"import pyro_vae, importlib; [importlib.import_module(n) for n in {names}]"
    run = subprocess.run(
        [sys.executable, "-c", f"{code}; print(pyro_vae.__file__)"],
        env=os.environ | {"PYTHONPATH": str(target)},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert run.stdout.startswith(str(target))
    assert (target / "pyro_vae" / "py.typed").exists()
