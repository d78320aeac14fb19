"""How the documentation is built: ``sphinx-build -W docs docs/_build``."""

import os
import shutil
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent

# the notebooks and figures live outside docs/; Sphinx reads only what is inside
for folder in ("notebooks", "figures"):
    shutil.copytree(ROOT / folder, HERE / "_copied" / folder, dirs_exist_ok=True)

# kernels of the notebooks import the package beside this folder
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))

project = "pyro_vae"
release = version("pyro_vae")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "pyro_vae"

myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = os.environ.get("PYRO_VAE_NOTEBOOKS", "force")  # "off" for a quick build
nb_execution_timeout = 600
nb_execution_raise_on_error = True

autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
