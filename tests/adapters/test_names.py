"""Names of modules: how entries match them, and which of them are linear."""

from __future__ import annotations

from peft import LoraConfig
from small_models import small_model

from peftkit.adapters.names import endings, is_named, linear_modules, only_named_linear, recipe_key


def test_keys_entries_and_endings() -> None:
    assert recipe_key(LoraConfig(), "r") == "adapter.lora.r"
    assert is_named("mlp.up", "layers.0.mlp.up") and not is_named("up", "layers.0.mlp.gate_up")
    assert endings(["a.b.c", "d.b.c", "e.c"], num_parts=2) == ["b.c", "e.c"]


def test_a_router_that_inherits_from_a_linear_layer_is_none() -> None:
    model = small_model("phimoe")
    assert endings(only_named_linear(model)) == ["router"]
    assert endings(linear_modules(model)) == ["q_proj", "k_proj", "v_proj", "o_proj"]


def test_a_linear_layer_of_a_familys_own_is_one() -> None:
    """Falcon writes its product and its bias as two steps."""
    assert only_named_linear(small_model("falcon")) == []
    assert "query_key_value" in endings(linear_modules(small_model("falcon")))
