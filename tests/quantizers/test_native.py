"""Every quantization of the installed transformers is a plugin, and says what its config says."""

from __future__ import annotations

from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest

from peftkit.errors import ResourceError, UsageError
from peftkit.plugins import find, plugin_names
from peftkit.quantizers import native
from peftkit.recipe.build import construct
from peftkit.recipe.signatures import signature_of

NAMES = sorted(set(plugin_names("quantizers")) - {"bitsandbytes", "torchao"})


def test_none_of_transformers_own_is_missing() -> None:
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING as KNOWN

    # bitsandbytes stands there under two names that differ only in a key of its one config
    ours = {*NAMES, "bitsandbytes_4bit", "bitsandbytes_8bit", "torchao"}
    assert set(KNOWN) == ours
    for name in NAMES:
        assert find("quantizers", name).Config == f"transformers:{KNOWN[name].__name__}"


@pytest.mark.parametrize("name", NAMES)
def test_what_the_table_says_stands_in_the_config(name: str) -> None:
    plugin = find("quantizers", name)
    known = signature_of(plugin.Config).options
    assert plugin.__doc__
    assert plugin.keeps_modules in {None, *known}
    if plugin.keeps_modules is None:
        assert not {"modules_to_not_convert", "skip_modules"} & set(known)
    assert plugin({}).storage is None, "what its packed weights take is not known here"
    assert plugin({}).there_and_back(None) is None
    with pytest.raises(UsageError, match="FSDP2 cannot shard"):
        plugin({}).replicated("bfloat16")


@pytest.mark.parametrize(
    ("name", "options", "bits"),
    [
        ("gptq", {"bits": 3}, 3),
        ("quanto", {"weights": "int4"}, 4),
        ("quanto", {"weights": "float8"}, 8),
        ("higgs", {}, 4),
        ("sinq", {"nbits": 2}, 2),
        ("eetq", {}, 8),
        ("mxfp4", {}, 4),
        ("aqlm", {}, None),
    ],
)
def test_bits_are_read_where_they_are_said(name: str, options: dict[str, Any], bits: Any) -> None:
    plugin = find("quantizers", name)
    assert plugin(construct(plugin.Config, options)).bits == bits


def test_bits_of_a_table_in_a_config() -> None:
    """hqq is not installed; this is how its config keeps them, or others layer by layer."""
    made = SimpleNamespace(quant_config={"weight_quant_params": {"nbits": 3}})
    assert native.Hqq(made).bits == 3
    assert native.Hqq(SimpleNamespace(quant_config={"self_attn.q_proj": {}})).bits is None


def test_a_missing_package_is_named() -> None:
    from transformers import QuantoConfig

    if find_spec("optimum") is not None:
        pytest.skip("optimum-quanto may be installed")
    with pytest.raises(ResourceError) as caught:
        native.Quanto(QuantoConfig(weights="int8")).check(device="cpu")
    assert "pip install optimum-quanto" in caught.value.message
    assert caught.value.exit_code == 5


def test_one_that_only_loads_says_so() -> None:
    plugin = find("quantizers", "awq")
    with pytest.raises(ResourceError, match="pre-quantized"):
        plugin(construct(plugin.Config, {})).check(device="cpu")
