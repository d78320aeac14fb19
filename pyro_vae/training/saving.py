"""Trained models as folders: ``config.json`` is the structure, ``model.safetensors`` the weights.

Both files are plain data: loading executes no code.
"""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, overload

import safetensors.torch
import torch
from torch import Tensor, nn

from .checkpoint import BEST, LAST, replacing
from .description import build, describe

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
FOLDER = "model"
"""The folder inside the folder of a run where its model is saved."""

FORMAT = "pyro_vae model 1"

M = TypeVar("M", bound=nn.Module)


def save(model: nn.Module, path: Path | str, *, overwrite: bool = False) -> None:
    """Save a trained model, such as a VAE, in a new folder; :func:`load` loads it.

    A VAE of the package's priors, families and networks, or of torch's common layers, is saved
    with its structure. Of other modules the weights are saved, for ``load(path, into=model)``.
    A pair of two modules is saved as ``nn.ModuleList([model, guide])``.

    Raises ``TypeError`` for anything but an ``nn.Module``, ``ValueError`` where the folder holds a
    model (unless ``overwrite``) or other files of these names, ``OSError`` where it cannot be
    written.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "digits"
    >>> save(vae, folder)
    >>> x = torch.rand(5, 64).round()
    >>> bool((load(folder).reconstruct(x) == vae.reconstruct(x)).all())
    True
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a module to save, got {type(model).__name__}")
    folder = Path(path)
    _check_free(folder, overwrite)
    weights = safetensors.torch.save(_tensors(model))
    config: dict[str, Any] = {
        "format": FORMAT,
        "versions": {name: version(name) for name in ("pyro_vae", "torch")},
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    try:
        config["model"] = _structure(model)
    except TypeError as error:
        config["own"] = str(error)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS) as file:
        file.write(weights)
    with replacing(folder / CONFIG) as file:  # after the weights, whose checksum it has
        file.write((json.dumps(config, indent=2) + "\n").encode())


@overload
def load(path: Path | str) -> Any: ...
@overload
def load(path: Path | str, into: M) -> M: ...
def load(path: Path | str, into: nn.Module | None = None) -> nn.Module:
    """Load a model from a folder that :func:`save` wrote, or from the folder of a finished run.

    The model is on the CPU and in ``eval`` mode. No training data are needed, and the folder may
    have been moved. With ``into``, the weights are loaded into a module of the same structure,
    which stays on its device and is returned: the way for networks of your own.

    Raises ``TypeError`` where ``into`` is no module, ``FileNotFoundError`` where there is no such
    folder, ``ValueError`` where a file is
    damaged or belongs to another structure, or where a model of own networks is loaded without
    ``into``.
    """
    folder = _folder(Path(path))
    config = _read_config(folder / CONFIG)
    tensors = _read_weights(folder / WEIGHTS, config["sha256"])
    model = _build(config, folder / CONFIG) if into is None else into
    _check_fits(model, tensors, folder)
    if into is not None:
        _check_types(into, tensors)
    model.load_state_dict(tensors, assign=into is None)
    return model.eval()


def _check_free(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"expected a folder to save in, got the file {folder}")
    if not (folder / CONFIG).exists() and not (folder / WEIGHTS).exists():
        return
    _read_config(folder / CONFIG)  # refuses to replace what is not a saved model
    if not overwrite:
        raise ValueError(
            f"expected a folder without a model, got {folder}: overwrite=True replaces the model"
        )


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """The weights and buffers, each in memory of its own."""
    state = model.state_dict()
    other = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if other:
        raise TypeError(f"expected weights and buffers to be tensors, got others: {other}")
    return {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}


def _structure(model: nn.Module) -> dict[str, Any]:
    """The description of a model; ``TypeError`` unless the same model can be built from it."""
    description = describe(model)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        twin = build(description)
    if describe(twin) != description or _shapes(twin) != _shapes(model):
        raise TypeError(f"expected a {type(model).__name__} as its constructor makes it")
    return description


def _shapes(model: nn.Module) -> tuple[Any, ...]:
    buffers = {name: value.shape for name, value in model.state_dict().items()}
    parameters = [name for name, _ in model.named_parameters()]  # shared ones once
    return buffers, parameters


def _folder(path: Path) -> Path:
    """The folder of the model: the path itself, or the one inside the folder of a run."""
    if not path.exists():
        raise FileNotFoundError(f"expected a folder written by save, got {path}: it does not exist")
    for folder in (path, path / FOLDER):
        if (folder / WEIGHTS).is_file():
            return folder
    if (path / LAST).exists() or (path / BEST).exists():
        raise ValueError(
            f"expected a folder written by save, got {path}, the folder of a run without a saved "
            f"model: scripts/train.py --resume {path} writes it when the run is finished"
        )
    raise FileNotFoundError(f"expected a folder with {CONFIG} and {WEIGHTS}, got {path}")


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"expected {path} beside the weights, got none")
    try:
        config = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected JSON in {path}, got {error}") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"expected a file of the format {FORMAT!r} written by save, got {path}")
    if not isinstance(config.get("sha256"), str) or not config.keys() & {"model", "own"}:
        raise ValueError(f"expected sha256 and model in {path}, got {sorted(config)}")
    return config


def _read_weights(path: Path, checksum: str) -> dict[str, Tensor]:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != checksum:
        raise ValueError(f"expected the weights that {CONFIG} belongs to, got a damaged {path}")
    try:
        return safetensors.torch.load(content)
    except Exception as error:
        raise ValueError(f"expected weights in {path}, got {error}") from error


def _build(config: dict[str, Any], path: Path) -> nn.Module:
    if "model" not in config:
        raise ValueError(
            f"expected load(path, into=model) for networks of your own, got no model: {path} "
            f"says {config['own']!r}"
        )
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            return build(config["model"])
    except Exception as error:  # the constructors raise many kinds for arguments of wrong types
        raise ValueError(
            f"expected the structure of a model in {path}, got {type(error).__name__}: {error}"
        ) from error


def _check_fits(model: nn.Module, tensors: dict[str, Tensor], folder: Path) -> None:
    """Raise unless the module has the tensors of the file: their names and shapes."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a module to load into, got {type(model).__name__}")
    own = model.state_dict()
    differences = [
        *(f"no {name}" for name in sorted(tensors.keys() - own.keys())),
        *(f"{name}, which is not in the file" for name in own if name not in tensors),
        *(
            f"{name} of shape {tuple(value.shape)} for {tuple(tensors[name].shape)}"
            for name, value in own.items()
            if name in tensors and tensors[name].shape != value.shape
        ),
    ]
    if differences:
        more = f", and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise ValueError(
            f"expected the {type(model).__name__} that {folder} was saved from, "
            f"got another structure: {'; '.join(differences[:3])}{more}"
        )


def _check_types(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Raise ``ValueError`` where loading would round, or cut, the numbers of the file."""
    for name, value in model.state_dict().items():
        if value.dtype != tensors[name].dtype:
            raise ValueError(f"expected {name} of {tensors[name].dtype}, got {value.dtype}")
