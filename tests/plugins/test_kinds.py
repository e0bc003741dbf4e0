"""Every kind of model is one that transformers and peft have."""

from __future__ import annotations

import pytest

from peftkit.plugins.kinds import (
    CAUSAL_LM,
    KINDS,
    MASKED_LM,
    PRETRAINING,
    SEQUENCE_CLASSIFICATION,
    kind_of_class,
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.auto_class)
def test_a_kind_is_upstreams(kind) -> None:
    import transformers
    from peft import TaskType

    mapping = getattr(transformers, kind.auto_class)._model_mapping
    names = [model.__name__ for model in map(mapping.__getitem__, list(mapping.keys())[:40])
             if not isinstance(model, tuple)]  # fmt: skip
    assert names
    assert kind.task_type is None or TaskType(kind.task_type)
    if kind.endings:
        # A few families are pretrained by a class of another kind.
        own = [name for name in names if kind_of_class(name) is kind]
        others = [name for name in names if "For" in name and kind_of_class(name) is not kind]
        assert len(own) > (0 if kind in (MASKED_LM, PRETRAINING) else len(names) // 2)
        assert not others or kind in (MASKED_LM, PRETRAINING)


def test_a_class_tells_its_kind() -> None:
    assert kind_of_class("GPT2LMHeadModel") is CAUSAL_LM
    assert kind_of_class("BertForSequenceClassification") is SEQUENCE_CLASSIFICATION
    assert kind_of_class("BertModel") is None
