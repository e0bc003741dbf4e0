"""How several processes, one a device, share a training: as its own native keys say.

Without `fsdp` every process has a replica (DDP). With it, FSDP2 cuts parameters, gradients and the
optimizer's state into as many shards. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftkit.errors import UsageError, first_line

if TYPE_CHECKING:
    from peftkit.recipe.build import Built

DDP, FSDP2 = "DDP", "FSDP2"


@dataclass(frozen=True)
class Sharing:
    """Say how many processes train together, and what each of them holds."""

    num_processes: int
    strategy: str
    """`DDP`: all of the model; `FSDP2`: a shard of it."""
    notes: tuple[str, ...]
    """What the numbers of one process do not hold."""

    def describe(self) -> str:
        """Say it, for a person."""
        return f"{self.num_processes} processes under {self.strategy}"


ALONE = Sharing(1, "", ())
_COLLECTIVES = (
    "NCCL's own buffers, which are not torch's: some hundred MiB a device, by its topology"
)
_OWN_POOLS = (
    "FSDP2 gathers and reduces on streams of their own: what CUDA's allocator keeps for each"
)
_NOT_SCORED = "scoring after training of a model that lies in shards"


def sharing_of(built: Built, args: Any, num_processes: int) -> Sharing:
    """Read off a trainer's arguments how it would share the training among processes.

    Raises:
        UsageError: the recipe asks for what does not work, or for what is not planned.
    """
    prefix = f"method.{built.recipe.method.name}"
    if num_processes == 1:
        if args.fsdp:
            raise UsageError(
                f"{prefix}.fsdp cuts the model into shards, and one process has none to share with",
                hint="say how many processes train together, e.g. --num-processes 8",
            )
        return ALONE
    for option in ("deepspeed", "parallelism_config"):
        if getattr(args, option):
            raise UsageError(f"{prefix}.{option} is not planned", hint=f"{prefix}.fsdp=true is")
    if not args.fsdp:
        return Sharing(num_processes, DDP, (_COLLECTIVES,))
    plugin = args.fsdp_plugin_args or {}
    _check_fsdp(f"{prefix}.fsdp_config", plugin, args)
    notes = [_COLLECTIVES, _OWN_POOLS, _NOT_SCORED]
    if built.quantizer is not None:
        computed = "bfloat16" if args.bf16 else "float16" if args.fp16 else None
        whole = built.quantizer.replicated(computed)
        notes += [] if whole is None else [whole]
    return Sharing(num_processes, FSDP2, tuple(notes))


def _check_fsdp(key: str, plugin: dict[str, Any], args: Any) -> None:
    """Refuse what upstream refuses once the model is loaded, and what is not planned."""
    if plugin.get("fsdp_version") != 2:
        raise UsageError(f"{key}.version 1 is not planned", hint=f"{key}.version=2, the default")
    if plugin.get("cpu_offload"):
        raise UsageError(
            f"{key}.cpu_offload is not planned: shards and optimizer would lie on the host",
            hint="delete it, and plan more processes",
        )
    if plugin.get("activation_checkpointing") and args.activation_checkpointing:
        raise UsageError(
            f"{key}.activation_checkpointing and activation_checkpointing exclude each other",
            hint=f"{key.rpartition('.')[0]}.activation_checkpointing=false",
        )


@contextmanager
def uncuttable_explained() -> Iterator[None]:
    """Say of an operator that knows no shards what it means, be it of a plan or of a run.

    Raises:
        UsageError: names what torch says.
    """
    try:
        yield
    except RuntimeError as error:
        if "DTensor" not in str(error):
            raise
        raise UsageError(
            f"this cannot be trained in shards: {first_line(error)}",
            hint="optim: adamw_torch_fused, another adapter, or replicas: delete fsdp",
        ) from error
