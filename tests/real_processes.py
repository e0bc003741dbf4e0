"""One real training step in several gloo processes, the first of them tracked.

What the planner is compared with: real collectives, torch's DDP and FSDP2, accelerate's own cut.
"""

from __future__ import annotations

import gc
import json
import socket
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

LLAMA = {
    "model_type": "llama", "vocab_size": 500, "hidden_size": 128, "intermediate_size": 352,
    "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 512, "tie_word_embeddings": False,
}  # fmt: skip
ROWS, LENGTH = 2, 24


def real_peaks(file: Path, num_processes: int) -> dict[str, int]:
    """Run two steps of a recipe and return the second's peak by phase, and in all under `all`.

    Args:
        file: the recipe; a JSON is written beside it.
    """
    from torch import multiprocessing

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = file.with_name("peaks.json")
    multiprocessing.spawn(_run, (num_processes, port, str(file), str(out)), nprocs=num_processes)
    return json.loads(out.read_text(encoding="utf-8"))


def _run(rank: int, num_processes: int, port: int, file: str, out: str) -> None:
    """Be one of the processes."""
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "memory")]
    warnings.simplefilter("ignore")
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=num_processes
    )
    peaks = _steps(file)
    if rank == 0:
        Path(out).write_text(json.dumps(peaks), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


def _steps(file: str) -> dict[str, int]:
    import numpy as np
    import torch

    from peftkit.memory import step
    from peftkit.memory.fake import storage_of
    from peftkit.memory.simulate import Marks, hold_model, state_tensors
    from peftkit.memory.terms import COLLECTIVES
    from peftkit.memory.trace import compile_trace
    from peftkit.memory.tracker import Tracker
    from peftkit.models.base import load_base
    from peftkit.planning.devices import of_size
    from peftkit.recipe.build import build
    from peftkit.recipe.load import load_recipe

    recipe = load_recipe(Path(file))
    built = build(recipe, of_size(24).as_machine(), is_here=False)
    args = built.method.config
    torch.manual_seed(0)
    base = load_base(
        recipe.model,
        kind=built.method.kind,
        quantizer=built.quantizer,
    )
    model = built.adapter.attach(base).train()
    step.set_checkpointing(model, args)
    built.method.prepare_model(model)
    batch, loss = _batch_and_loss(recipe, built, model)
    settings = step.StepSettings.of(args, "cpu")
    storage = storage_of(built.quantizer)
    tracker = Tracker(storage)
    whole: Any
    if args.fsdp:
        settings = step.StepSettings(settings.accumulation, settings.max_grad_norm, None, "cpu")
        model = whole = _shard(model, args, f"method.{recipe.method.name}.fsdp")
        optimizer = step.make_optimizer(model, built.method)
        tracker = Tracker(storage)
    else:
        # Buckets are made by the reducer, which is no operator of Python: it is tracked from birth.
        hold_model(tracker, model)
        with tracker:
            whole = torch.nn.parallel.DistributedDataParallel(
                model, find_unused_parameters=not args.activation_checkpointing
            )
        optimizer = step.make_optimizer(model, built.method)
    trained = [p for p in model.parameters() if p.requires_grad]

    def micro_batch(enter: Any, *, is_last: bool) -> None:
        if args.fsdp:
            options = args.accelerator_config.gradient_accumulation_kwargs or {}
            whole.set_requires_gradient_sync(is_last or options.get("sync_each_batch", False))
        elif not is_last:
            with whole.no_sync():
                step.forward_backward(whole, dict(batch), loss, settings, enter)
            return
        rows = {key: value.clone() for key, value in batch.items()}
        step.forward_backward(whole, rows, loss, settings, enter)

    def first_micro_batches() -> None:
        for _ in range(settings.accumulation - 1):
            micro_batch(_ignore, is_last=False)

    if args.fsdp:
        for _ in range(2):  # in the first, DTensor learns shapes by tensors of its own
            first_micro_batches()
            micro_batch(_ignore, is_last=True)
            step.update(trained, optimizer, settings, _ignore)
        first_micro_batches()
        _watch(tracker, model)
    else:
        with tracker:
            for _ in range(2):  # after the first, the reducer makes its buckets anew
                first_micro_batches()
                micro_batch(_ignore, is_last=True)
                step.update(trained, optimizer, settings, _ignore)
            first_micro_batches()
    # Rings of objects hold tensors until the collector comes by: it shall come by at once.
    # It looks through everything only once that has grown by a quarter since it did so last, so
    # that what is there must be frozen before, not after, it does.
    gc.collect()
    gc.freeze()
    gc.collect()
    gc.set_threshold(50, 2, 2)
    hold_model(tracker, model)  # also what DDP has broadcast meanwhile
    tracker.hold(state_tensors(optimizer), "optimizer")
    tracker.hold((p.grad for p in trained if p.grad is not None), "gradients")
    marks = Marks(model, tracker)
    with tracker:
        tracker.enter("forward")
        micro_batch(marks.enter, is_last=True)
        tracker.label((p.grad for p in trained if p.grad is not None), "gradients")
        step.update(trained, optimizer, settings, marks.enter)
        trace = tracker.finish()
    live = compile_trace(trace).live(np.array(trace.num_bytes, np.int64))
    is_step = live.phases != live.phase_names.index("load")
    peaks = live.phase_peaks()
    peaks.pop("load")
    most = int(live.by_term[COLLECTIVES][is_step].max())
    return {**peaks, "all": max(peaks.values()), COLLECTIVES: most}


def _batch_and_loss(recipe: Any, built: Any, model: Any) -> tuple[dict[str, Any], Any]:
    """Make what the method's own trainer reads, and the loss that it computes."""
    from real_step import batch_of, token_batch
    from trl.trainer.utils import add_fused_lm_head

    from peftkit.plugins.losses import fused_loss

    if recipe.method.name != "sft":
        return batch_of(recipe)[0], built.method.loss()
    add_fused_lm_head(
        model.get_base_model() if hasattr(model, "peft_config") else model,
        outputs=("log_probs", "entropy", "is_top1"),
    )
    return token_batch(ROWS, LENGTH, vocabulary=500), fused_loss


def _shard(model: Any, args: Any, key: str) -> Any:
    """Cut the model as `Accelerator.prepare` does, which knows no FSDP of processes on a CPU."""
    import torch
    import torch.distributed as dist
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.fsdp_utils import fsdp2_apply_ac, fsdp2_prepare_model
    from torch.distributed.device_mesh import init_device_mesh

    from peftkit.memory.cutting import settle_plugin

    plugin = FullyShardedDataParallelPlugin(**args.fsdp_plugin_args)
    if args.mixed_precision != "no":
        plugin.set_mixed_precision(args.mixed_precision)
    accelerator = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin),
        torch_device_mesh=init_device_mesh(
            "cpu", (dist.get_world_size(),), mesh_dim_names=("shard",)
        ),
        parallelism_config=SimpleNamespace(fsdp_dim_names=("shard",)),
        mixed_precision=args.mixed_precision,
        is_main_process=False,
        device=torch.device("cpu"),
    )
    plugin.ignored_modules = settle_plugin(plugin, model, key) or None
    plugin.set_auto_wrap_policy(model)
    if plugin.activation_checkpointing:
        model = fsdp2_apply_ac(accelerator, model)
    return fsdp2_prepare_model(accelerator, model)


def _watch(tracker: Any, model: Any) -> None:
    from torch.distributed.fsdp import FSDPModule

    from peftkit.memory.terms import COLLECTIVES

    for module in model.modules():
        if isinstance(module, FSDPModule):
            for group in module._get_fsdp_state()._fsdp_param_groups:
                for parameter in group.fsdp_params:
                    tracker.watch(parameter.all_gather_outputs, COLLECTIVES)
                    whole = getattr(parameter, "_unsharded_param", None)
                    kept = (parameter.unsharded_accumulated_grad, getattr(whole, "grad", None))
                    tracker.hold((g for g in kept if g is not None), "gradients")


def _ignore(_phase: str) -> None:
    pass
