"""What the methods share: keys that peftkit sets itself, and what it chooses where a recipe is
silent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftkit.plugins.machine import Chosen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftkit.plugins.machine import Machine

_HUB = "train first; then `peftkit push RUN OWNER/NAME`"
LABELS_ARE_OURS = "data.task: peftkit encodes the rows and sets the labels itself"
_CHECKPOINTS = "nothing: peftkit's checkpoints always resume with the same command"

OWNED: Mapping[str, str] = {
    "output_dir": "`peftkit run --out DIR`, or `name:`",
    "run_name": "`name:`",
    "resume_from_checkpoint": "the same `peftkit run` command again: it resumes by itself",
    "enable_jit_checkpoint": "nothing: the first SIGINT, SIGTERM or SIGHUP writes a checkpoint",
    "save_only_model": _CHECKPOINTS,
    "restore_callback_states_from_checkpoint": _CHECKPOINTS,
    "remove_unused_columns": LABELS_ARE_OURS,
    "label_names": LABELS_ARE_OURS,
    "do_train": "`peftkit run`",
    "do_eval": "`eval_strategy`",
    "do_predict": "`peftkit evaluate` or `peftkit generate`",
    "local_rank": "nothing: the launcher sets it",
    "ignore_data_skip": "nothing: a resumed run goes on with the next row",
    "disable_tqdm": "nothing: peftkit shows its own bar, or plain lines without a terminal",
    "logging_nan_inf_filter": "nothing: a loss that is not a number stops the run",
    "push_to_hub": _HUB,
    "hub_model_id": _HUB,
    "hub_strategy": _HUB,
    "hub_token": _HUB,
    "hub_private_repo": _HUB,
    "hub_always_push": _HUB,
    "hub_revision": _HUB,
}
"""Keys of transformers' TrainingArguments that peftkit sets itself -> what to use instead."""


REAL_TOKENS = Chosen(
    "include_num_input_tokens_seen",
    "non_padding",
    "tokens per second count real tokens, and go on counting after a resume",
)


def choose(options: Mapping[str, Any], *, dtype: str, machine: Machine) -> list[Chosen]:
    """Choose device, precision and logging for options that are TrainingArguments."""
    device = "cpu" if options.get("use_cpu") else machine.device
    mixed = precision(options, dtype=dtype, device=device, machine=machine)
    return [
        *(one for one in mixed if one.value),  # their default is full precision
        *on_cpu(device, why="transformers raises on bf16"),
        *logging(options),
        REAL_TOKENS,
    ]


def choose_for_trl(options: Mapping[str, Any], *, dtype: str, machine: Machine) -> list[Chosen]:
    """Choose the same for options of trl, whose defaults are bf16 and checkpointing everywhere."""
    device = "cpu" if options.get("use_cpu") else machine.device
    return [
        *precision(options, dtype=dtype, device=device, machine=machine),
        *on_cpu(device, why="trl raises on bf16"),
        *_checkpointing(options, device),
        *logging(options),
        REAL_TOKENS,
    ]


def _checkpointing(options: Mapping[str, Any], device: str) -> list[Chosen]:
    if "gradient_checkpointing" in options:  # the older name of the same option
        return []
    option = "activation_checkpointing"
    if device == "cpu":
        return [Chosen(option, False, "recomputing costs time, resident memory is ample")]
    return [Chosen(option, True, "trl's default: a third more time, far less memory")]


def precision(
    options: Mapping[str, Any], *, dtype: str, device: str, machine: Machine
) -> list[Chosen]:
    """Choose mixed precision: trl's default is bf16 whatever `model.dtype` says."""
    if "bf16" in options or "fp16" in options:
        return []
    if dtype == "float32":
        return [
            Chosen(
                "bf16", False, "model.dtype is float32; trl's default would compute in bfloat16"
            ),
            Chosen("fp16", False, "model.dtype is float32"),
        ]
    if device == "cpu":
        why = "a CPU computes in the weights' own dtype; autocast would cast each of them anew"
        return [Chosen("bf16", False, why), Chosen("fp16", False, why)]
    if dtype == "float16":
        why = "model.dtype is float16: the adapter stays float32 and its loss is scaled"
        return [Chosen("fp16", True, why), Chosen("bf16", False, why)]
    if machine.supports_bfloat16:
        return [Chosen("bf16", True, f"{machine.name} computes in bfloat16")]
    why = f"{machine.name} has no bfloat16 arithmetic"
    return [Chosen("bf16", False, why), Chosen("fp16", False, why)]


def on_cpu(device: str, *, why: str) -> list[Chosen]:
    """Choose what a run on the CPU needs.

    Args:
        why: who refuses what unless told that the CPU is meant.
    """
    if device != "cpu":
        return []
    return [
        Chosen("use_cpu", True, f"the run is on the CPU; {why} there unless told"),
        Chosen("dataloader_pin_memory", False, "pinned pages only speed up copies to a device"),
    ]


def logging(options: Mapping[str, Any]) -> list[Chosen]:
    """Choose how often the run is logged and saved, in shares of its length."""
    chosen: list[Chosen] = []
    if options.get("logging_strategy", "steps") == "steps":
        why = "200 points on the loss curve, whatever the run's length"
        chosen.append(Chosen("logging_steps", 0.005, why))
    if options.get("save_strategy", "steps") == "steps":
        chosen.append(Chosen("save_steps", 0.1, "a hard kill loses a tenth of the run at most"))
    return [
        *chosen,
        Chosen("save_total_limit", 2, "the newest checkpoint, and one to fall back on"),
        Chosen("disable_tqdm", True, "peftkit shows its own bar"),
        Chosen("logging_nan_inf_filter", False, "transformers would show a lost loss as 0.0"),
    ]
