"""What a plugin is: contracts, what passes between them, and how one is found by name."""

from peftkit.plugins.examples import Conversation, Example, Labeled, Text
from peftkit.plugins.registry import (
    GROUPS,
    Adapter,
    Decision,
    Exporter,
    Machine,
    Merge,
    Method,
    PluginInfo,
    Source,
    Task,
    all_plugins,
    available,
    find,
    missing_members,
    only_builtins,
    plugin_names,
)

__all__ = [
    "GROUPS",
    "Adapter",
    "Conversation",
    "Decision",
    "Example",
    "Exporter",
    "Labeled",
    "Machine",
    "Merge",
    "Method",
    "PluginInfo",
    "Source",
    "Task",
    "Text",
    "all_plugins",
    "available",
    "find",
    "missing_members",
    "only_builtins",
    "plugin_names",
]
