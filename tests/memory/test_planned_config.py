"""The configuration that is planned: the catalogue's, or a folder's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftkit.errors import ArtefactError
from peftkit.memory.planned_config import planned_config
from peftkit.recipe.schema import ModelSection


def test_well_known_models_need_no_network() -> None:
    config = planned_config(ModelSection(path="meta-llama/Llama-3.1-8B"))
    assert config.num_hidden_layers == 32


def test_custom_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no_such_architecture"}')
    with pytest.raises(ArtefactError, match="no_such_architecture"):
        planned_config(ModelSection(path=str(tmp_path)))
