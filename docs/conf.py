"""How the documentation is built: ``sphinx-build -W docs docs/_build/html``."""

import os
import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent

# the notebooks and figures live outside docs/; Sphinx reads only what is inside
for folder in ("notebooks", "figures"):
    shutil.copytree(ROOT / folder, HERE / "_copied" / folder, dirs_exist_ok=True)

# kernels of the notebooks import the package beside this folder
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))

project = "pyro_vae"
release = metadata.version("pyro_vae")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax"]
exclude_patterns = ["_build", "jupyter_execute", "_copied/ipython"]
html_theme = "furo"
html_title = "pyro_vae"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["tables.css"]

myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3
execution = os.environ.get("PYRO_VAE_NOTEBOOKS", "force")  # "off" for a quick build; "short": CI
if execution == "short":  # IPython runs what it finds there before the first cell
    startup = HERE / "_copied" / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "short_notebooks.py", startup)
    os.environ["IPYTHONDIR"] = str(startup.parents[1])
nb_execution_mode = "off" if execution == "off" else "force"
nb_execution_timeout = 1200  # of a cell, on a busy machine
nb_execution_raise_on_error = True

autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_inherit_docstrings = False  # those of torch and Pyro are not ours

LITERAL = re.compile(r"(``.*?``|:\w+:`.*?`|\*[^\s*|][^*]*\*(?!\w))", re.DOTALL)


def escape_formulas(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Docstrings write p(x | z) and a * b: outside literals and titles these are no markup."""
    parts = LITERAL.split("\n".join(lines))
    parts[::2] = [re.sub(r"([|*])", r"\\\1", part) for part in parts[::2]]
    lines[:] = "".join(parts).split("\n")


def setup(app: Any) -> None:
    """Register what Sphinx calls for each docstring."""
    app.connect("autodoc-process-docstring", escape_formulas)
