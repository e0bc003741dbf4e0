"""A whole model's folder: its configuration, and its tensors one at a time."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError
from peftkit.models.load_errors import load_explained
from peftkit.system.checkpoint_files import read_json, weight_files
from peftkit.system.foreign_fields import check_config_fields, check_model_sizes
from peftkit.system.quiet import quiet_stack
from peftkit.system.weight_folders import TRAINED, check_base_folder

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".pt", ".pth")
_NOT_COPIED = ("adapter_config.json", "README.md", "manifest.json", TRAINED)


@dataclass(frozen=True)
class ModelFolder:
    """Name a model's files; nothing of its weights is in memory."""

    path: Path
    config: Mapping[str, Any]
    """What `config.json` says."""
    shapes: Mapping[str, tuple[int, ...]]
    """Tensor name -> shape, in the order of the files."""
    files: Mapping[str, Path]
    """Tensor name -> file."""

    @property
    def model_type(self) -> str:
        """Return the architecture's name in transformers."""
        return str(self.config.get("model_type", ""))

    def read(self, name: str) -> Tensor:
        """Read one tensor."""
        from safetensors import safe_open

        with safe_open(self.files[name], framework="pt") as stream:
            tensor: Tensor = stream.get_tensor(name)
        return tensor


def open_model(path: Path) -> ModelFolder:
    """Read a model folder's configuration and the headers of its weights.

    Raises:
        ArtefactError: the folder is no model, or its weights are pickled, torn or missing.
    """
    from safetensors import safe_open

    check_base_folder(path)
    config = read_json(path / "config.json")
    check_config_fields(config, str(path / "config.json"))
    check_model_sizes(config, str(path / "config.json"))
    shapes: dict[str, tuple[int, ...]] = {}
    files: dict[str, Path] = {}
    for file in weight_files(path):
        with safe_open(file, framework="pt") as stream:
            for name in stream.keys():  # noqa: SIM118 - no mapping: it has keys() only
                shapes[name] = tuple(stream.get_slice(name).get_shape())
                files[name] = file
    return ModelFolder(path, config, shapes, files)


def load_model(path: Path, **keywords: Any) -> PreTrainedModel:
    """Load a folder with the transformers class that its configuration names.

    Raises:
        ArtefactError: the installed transformers has no such class, or cannot load it.
    """
    quiet_stack()
    import transformers

    names = read_json(path / "config.json").get("architectures") or []
    loader = getattr(transformers, names[0], None) if names else None
    if loader is None:
        raise ArtefactError(
            f"{path / 'config.json'}: transformers {transformers.__version__} has no {names}",
            hint="architectures must name the class that saved the model",
        )
    transformers.utils.logging.disable_progress_bar()
    with load_explained(str(path)):
        model: PreTrainedModel = loader.from_pretrained(
            path, local_files_only=True, use_safetensors=True, **keywords
        )
    return model.eval()


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer that lies beside the weights.

    Raises:
        ArtefactError: there is none.
    """
    quiet_stack()
    from transformers import AutoTokenizer

    with load_explained(f"{path}: its tokenizer"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            path, local_files_only=True
        )
    return tokenizer


def load_config(path: Path) -> PretrainedConfig:
    """Load the configuration that lies beside the weights.

    Raises:
        ArtefactError: this transformers takes its values for none.
    """
    from transformers import AutoConfig

    with load_explained(str(path)):
        return AutoConfig.from_pretrained(path, local_files_only=True)


def generation_config(folder: Path) -> dict[str, Any]:
    """Read what a folder says of generating; empty where it says nothing."""
    file = folder / "generation_config.json"
    return read_json(file) if file.is_file() else {}


def stop_ids(folder: Path, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens that end an answer of the model in a folder, the tokenizer's own first."""
    stated = generation_config(folder).get("eos_token_id")
    ids = [tokenizer.eos_token_id, *(stated if isinstance(stated, list) else [stated])]
    return list(dict.fromkeys(index for index in ids if isinstance(index, int)))


def copy_companions(folder: Path, out: Path) -> list[Path]:
    """Copy what belongs to a model beside its weights: tokenizer, chat template, configuration."""
    copied = []
    for file in sorted(folder.iterdir()):
        is_other = file.name.endswith(_WEIGHTS) or file.name in _NOT_COPIED
        if file.is_file() and not is_other and not file.name.startswith("."):
            copied.append(Path(shutil.copy(file, out / file.name)))
    return copied
