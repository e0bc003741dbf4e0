"""The names of other tools' keys, and whose versions they are."""

from __future__ import annotations

import pytest

from peftkit.importers.schemas import keys_of, version_of
from peftkit.plugins import find, plugin_names


@pytest.mark.parametrize(
    ("tool", "some"),
    [
        ("axolotl", {"micro_batch_size", "lora_r", "neftune_noise_alpha"}),
        ("llamafactory", {"finetuning_type", "cutoff_len", "pissa_init"}),
        ("mlx", {"iters", "mask_prompt"}),
        ("ms_swift", {"model", "max_length"}),
        ("litgpt", {"checkpoint_dir", "lora_r"}),
        ("torchtune", {"checkpointer", "batch_size"}),
    ],
)
def test_a_tool_has_the_keys_that_it_is_known_for(tool, some):
    assert some <= keys_of(tool)
    assert version_of(tool)[0].isdigit()


def test_every_importer_says_whose_it_is():
    for name in plugin_names("importers"):
        importer = find("importers", name)
        assert importer.title
        assert importer.version
        assert importer.telling or importer.commands
