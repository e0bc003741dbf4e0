"""What a plugin is: contracts, what passes between them, and how one is found by name."""

from peftkit.plugins.evaluation import (
    Answerer,
    Asking,
    Contestant,
    Evaluator,
    Question,
    Reply,
    Scoring,
)
from peftkit.plugins.examples import Conversation, Example, Labeled, Text
from peftkit.plugins.kinds import (
    CAUSAL_LM,
    PRETRAINING,
    QUESTION_ANSWERING,
    SEQ_2_SEQ_LM,
    SEQUENCE_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
    ModelKind,
)
from peftkit.plugins.machine import Chosen, Decision, Machine
from peftkit.plugins.method import Method, Training, make_trainer
from peftkit.plugins.parts import Adapter, Exporter, Merge, Source, Task
from peftkit.plugins.registry import (
    GROUPS,
    PluginInfo,
    all_plugins,
    available,
    find,
    missing_members,
    only_builtins,
    plugin_names,
)
from peftkit.plugins.rows import IGNORED, LENGTH, Point, Row, RowCount, count_sequence

__all__ = [
    "CAUSAL_LM",
    "GROUPS",
    "IGNORED",
    "LENGTH",
    "PRETRAINING",
    "QUESTION_ANSWERING",
    "SEQUENCE_CLASSIFICATION",
    "SEQ_2_SEQ_LM",
    "TOKEN_CLASSIFICATION",
    "Adapter",
    "Answerer",
    "Asking",
    "Chosen",
    "Contestant",
    "Conversation",
    "Decision",
    "Evaluator",
    "Example",
    "Exporter",
    "Labeled",
    "Machine",
    "Merge",
    "Method",
    "ModelKind",
    "PluginInfo",
    "Point",
    "Question",
    "Reply",
    "Row",
    "RowCount",
    "Scoring",
    "Source",
    "Task",
    "Text",
    "Training",
    "all_plugins",
    "available",
    "count_sequence",
    "find",
    "make_trainer",
    "missing_members",
    "only_builtins",
    "plugin_names",
]
