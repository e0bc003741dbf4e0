"""What people type in place of peftkit's own words: other tools' verbs and options."""

from __future__ import annotations

from collections.abc import Mapping

VERBS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("train", "finetune", "fine-tune", "tune", "start", "resume", "continue", "sft"),
        ("run",),
    ),
    **dict.fromkeys(
        ("chat", "ask", "predict", "infer", "inference", "complete", "prompt", "sample", "gen"),
        ("generate",),
    ),
    **dict.fromkeys(("eval", "score", "test", "benchmark-model"), ("evaluate",)),
    **dict.fromkeys(("validate", "lint", "verify"), ("check",)),
    **dict.fromkeys(("list", "ls", "status", "history", "ps", "list-runs"), ("runs",)),
    **dict.fromkeys(("compare", "diff"), ("runs", "compare")),
    **dict.fromkeys(("delete", "rm", "remove", "clean"), ("runs", "delete")),
    **dict.fromkeys(("convert", "save", "package"), ("export",)),
    **dict.fromkeys(("upload", "publish", "push-to-hub"), ("push",)),
    **dict.fromkeys(("benchmark", "profile"), ("bench",)),
    **dict.fromkeys(("estimate", "memory", "vram", "estimate-memory", "size"), ("plan",)),
    **dict.fromkeys(("new", "create", "import", "generate-config"), ("init",)),
    **dict.fromkeys(("templates", "template", "examples", "recipe", "configs"), ("recipes",)),
    **dict.fromkeys(("env", "info", "diagnose", "environment"), ("doctor",)),
    **dict.fromkeys(("show", "preview", "inspect", "dataset", "preprocess", "tokenize"), ("data",)),
    **dict.fromkeys(("schema", "options", "man"), ("explain",)),
    **dict.fromkeys(("fuse", "combine", "merge-lora", "merge_and_unload"), ("merge",)),
    "optimize": ("fit",),
    "version": ("--version",),
    "help": ("--help",),
}
"""A word that is no command -> the command."""

DRY_RUN = frozenset({"dry-run", "dryrun", "dry_run", "simulate", "test-run"})
"""Words for a run that trains nothing."""

SAME_COMMAND = frozenset({"resume", "resume-from-checkpoint", "continue", "overwrite-output-dir"})
"""Options that ask for what the same command does by itself."""

OPTIONS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("output-dir", "output", "out-dir", "save-dir", "output-path", "o", "dir"), ("--out",)
    ),
    **dict.fromkeys(("gpu", "gpus", "device", "vram", "card"), ("--gpus", "--gpu")),
    **dict.fromkeys(("input", "input-file", "prompts", "questions"), ("--file",)),
    **dict.fromkeys(("format", "type", "target"), ("--to",)),
    **dict.fromkeys(("model", "base-model", "model-name-or-path"), ("--base",)),
    **dict.fromkeys(("dryrun", "test-run"), ("--dry-run",)),
    **dict.fromkeys(("num-gpus", "nproc", "nproc-per-node"), ("--num-processes",)),
    **dict.fromkeys(("verbose", "debug"), ("--traceback",)),
    **dict.fromkeys(("force", "assume-yes"), ("--yes",)),
    **dict.fromkeys(("max-samples", "num-samples", "n"), ("--limit",)),
    "dataset-split": ("--split",),
    "task-type": ("--task",),
    "strict": ("--build",),
}
"""A word after the dashes -> options that may be meant, those that the command has."""

POSITIONAL = frozenset(
    {"config", "config-file", "recipe", "run", "adapter", "adapter-path", "checkpoint", "prompt"}
    | {"data", "dataset", "dataset-path", "question", "file", "c", "f"}
)
"""Options of other tools whose value stands here by itself."""

DATA_SUFFIXES = frozenset({".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".txt"})
RECIPE_SUFFIXES = frozenset({".yaml", ".yml"})

_FOUR_BITS = "model.quantize={bitsandbytes: {load_in_4bit: true}}"
WHOLE = dict.fromkeys(("4bit", "load-in-4bit", "load_in_4bit", "qlora"), _FOUR_BITS)
"""A word that is an override by itself, whatever its value."""
