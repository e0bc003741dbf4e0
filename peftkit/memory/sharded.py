"""Rehearse the step of one of several processes, with upstream's own sharding on fake tensors.

torch's fake process group stands for the other processes: its collectives allocate what they would
and compute nothing. accelerate cuts the model as it does in a run, torch's FSDP2 gathers and
reduces, and the tracker follows both. No process is started, and no rule of theirs stands here.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from peftkit.memory import step
from peftkit.memory.cutting import settle_plugin
from peftkit.memory.fake import PlanningError
from peftkit.memory.fake_step import Rehearsal, Rehearsed
from peftkit.memory.sharing import uncuttable_explained
from peftkit.memory.terms import COLLECTIVES
from peftkit.memory.trace import Program, Repeat, Trace, compile_trace
from peftkit.plugins.quantizer import PLAIN, Storage

if TYPE_CHECKING:
    import torch
    from torch.distributed.device_mesh import DeviceMesh
    from transformers import PretrainedConfig, TrainingArguments

    from peftkit.memory.sharing import Sharing
    from peftkit.memory.tracker import Tracker
    from peftkit.plugins import Point
    from peftkit.recipe.build import Built


class Sharded(Rehearsed):
    """Rehearse what one process holds and gathers under FSDP2."""

    def __init__(
        self,
        built: Built,
        config: PretrainedConfig,
        *,
        device: str,
        sharing: Sharing,
        scored_share: float = 1.0,
    ) -> None:
        super().__init__(built, config, device=device, sharing=sharing, scored_share=scored_share)
        # FSDP2 casts what it gathers; accelerate wraps no model of it in autocast.
        self.settings = dataclasses.replace(self.settings, autocast=None)
        self._is_cut = False
        self._key = f"method.{built.recipe.method.name}.fsdp"

    def rehearse(self, point: Point, *, held: int = 0, block: int = 1) -> Rehearsal:
        """Run the step of one process, see `Rehearsed`.

        Raises:
            UsageError: real processes would fail as well, e.g. in an optimizer's own operator.
        """
        with uncuttable_explained():
            return super().rehearse(point, held=held, block=block)

    def _micro_batch(self, point: Point, *, times: int) -> tuple[Trace, Program, list[Repeat]]:
        """Run forward and backward of a model that is cut anew: what is cut cannot be mended."""
        model = self._make().model
        with (
            self.kept(times, model) as (kept, repeats),
            stand_alone(self.sharing.num_processes) as mesh,
            self.mode,
        ):
            model = cut(model, self.args, mesh, self._key, self.fake.storage)
            self._warm_up(model, point)
            trace = self._track(model, point, kept)
        return trace, compile_trace(trace, repeats, without="load"), repeats

    def _blocks(self) -> tuple[int, int]:
        """Return how many middle blocks the two runs have.

        While a layer's backward runs, FSDP2 gathers the second before it, which must be one that
        the layer's own stand for.
        """
        first, second = super()._blocks()
        return max(first, 2), max(second, 3)

    @property
    def _keeps_whole_gradients(self) -> bool:
        """Tell whether micro-batches before a step's last are left unreduced.

        Source: accelerate 1.15, `Accelerator.no_sync`, and transformers 5.23, `Trainer`.
        """
        config = self.args.accelerator_config
        options = getattr(config, "gradient_accumulation_kwargs", None) or {}
        return self.settings.accumulation > 1 and not options.get("sync_each_batch", False)

    def _warm_up(self, model: Any, point: Point) -> None:
        """Let FSDP2 set itself up; gradients of earlier micro-batches stay where there are any."""
        model.set_requires_gradient_sync(not self._keeps_whole_gradients)
        with self.kernels(model), self.attending(model):
            batch = self._make_batch(point)
            step.forward_backward(model, batch, self.loss_at(point), self.settings, _ignore)
        model.set_requires_gradient_sync(True)
        if self.settings.accumulation == 1:
            model.zero_grad()

    @contextmanager
    def _saving(self, model: Any, tracker: Tracker) -> Iterator[None]:
        """Follow what FSDP2 resizes in place, too, and the gradients that it keeps whole.

        A layer is gathered while another one runs, and freed in its own time.
        """
        _watch(tracker, model)
        with super()._saving(model, tracker), tracker.freeing_once():
            yield

    def _earlier_gradients(self) -> list[torch.Tensor]:
        """Return the gradients of earlier micro-batches, whole and as they will be reduced."""
        import torch

        if not self._keeps_whole_gradients:
            return super()._earlier_gradients()
        precision = self.args.mixed_precision
        dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16}
        return [torch.empty(p.shape, dtype=dtypes.get(precision, p.dtype)) for p in self.trained]

    def _update(self, held: int) -> tuple[Trace, Trace]:
        with stand_alone(self.sharing.num_processes) as mesh:
            if not self._is_cut:
                self._cut_whole(mesh)
            return super()._update(held)

    def _cut_whole(self, mesh: DeviceMesh) -> None:
        """Cut the whole model, and know its shards by what they were cut from."""
        parameters = list(self.model.parameters())
        held = {id(parameter) for parameter in parameters}
        bases = {id(tensor) for tensor in self.fake.terms["base"]}
        terms = ["base" if id(p) in bases else "adapter" for p in parameters]
        left = {
            term: [tensor for tensor in tensors if id(tensor) not in held]
            for term, tensors in self.fake.terms.items()
        }
        with self.mode:
            self.model = cut(self.model, self.args, mesh, self._key, self.fake.storage)
        for term, shard in zip(terms, self.model.parameters(), strict=True):
            left[term].append(shard)
        self.fake.terms = left
        self._is_cut = True
        self._clip_once()

    def _clip_once(self) -> None:
        """Clip gradients untracked: the first time, DTensor makes tensors to learn their shapes."""
        import torch

        with self.mode:
            for parameter in self.trained:
                parameter.grad = torch.empty_like(parameter, requires_grad=False)
            torch.nn.utils.clip_grad_norm_(self.trained, 1.0)


@contextmanager
def stand_alone(num_processes: int) -> Iterator[DeviceMesh]:
    """Be the first of so many processes, none of which is there; outside of fake mode.

    Raises:
        PlanningError: this process is one of several already.
    """
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if dist.is_initialized():
        raise PlanningError(
            "this process belongs to a group already, so that none can be made up for a plan",
            hint="plan in a process of its own: `peftkit plan RECIPE --num-processes N`",
        )
    hook = sys.excepthook  # which torch replaces by one that numbers every line by its process
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=num_processes)
    try:
        yield init_device_mesh("cpu", (num_processes,), mesh_dim_names=("dp_shard",))
    finally:
        dist.destroy_process_group()
        sys.excepthook = hook


def cut(
    model: Any, args: TrainingArguments, mesh: DeviceMesh, key: str, storage: Storage = PLAIN
) -> Any:
    """Cut a model into shards with accelerate's own function, inside of a process group.

    It asks an `Accelerator` for a few values, which would need real processes. Packed weights are
    of no class of their own in a fake model, so that what accelerate does for those is said here:
    they stay whole unless they are packed into a floating dtype, and no trained weight is upcast.

    Args:
        key: the recipe's, which asks for shards.

    Raises:
        UsageError: a weight that cannot be cut is trained.
        PlanningError: weights that the model shares come apart.
    """
    import torch
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.fsdp_utils import fsdp2_apply_ac, fsdp2_prepare_model

    options = dict(args.fsdp_plugin_args or {})
    plugin = FullyShardedDataParallelPlugin(**{**options, "cpu_ram_efficient_loading": False})
    packed = [module for module in model.modules() if storage.is_packed(module)]
    left = [module for module in packed if not module.weight.is_floating_point()]
    plugin.ignored_modules = [*left, *settle_plugin(plugin, model, key)] or None
    if args.mixed_precision != "no":
        plugin.set_mixed_precision(args.mixed_precision)
    accelerator = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin),
        torch_device_mesh=mesh,
        parallelism_config=SimpleNamespace(fsdp_dim_names=("dp_shard",)),
        mixed_precision="no" if packed else args.mixed_precision,
        is_main_process=False,  # which alone writes logs
        device=torch.device("cpu"),
    )
    for module in packed:
        module.register_forward_pre_hook(lambda module, _args: storage.rejoin(module))
    plugin.set_auto_wrap_policy(model)
    if plugin.activation_checkpointing:
        model = fsdp2_apply_ac(accelerator, model)
    whole = dict(model.named_parameters())
    model = fsdp2_prepare_model(accelerator, model)
    apart = [name for name, _ in model.named_parameters() if name not in whole]
    if apart:
        raise PlanningError(
            f"FSDP2 cuts {', '.join(apart)} apart from the weights that it is one with, so this"
            " cannot be planned",
            hint="plan replicas: delete fsdp",
        )
    return model


def _watch(tracker: Tracker, model: Any) -> None:
    """Find what FSDP2 gathers into, and whole gradients; nothing public tells of either."""
    from torch.distributed.fsdp import FSDPModule

    sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
    groups = [group for module in sharded for group in module._get_fsdp_state()._fsdp_param_groups]
    for parameter in (parameter for group in groups for parameter in group.fsdp_params):
        tracker.watch(parameter.all_gather_outputs, COLLECTIVES)
        whole = getattr(parameter, "_unsharded_param", None)  # None where it was never gathered
        kept = (parameter.unsharded_accumulated_grad, getattr(whole, "grad", None))
        tracker.hold((gradient for gradient in kept if gradient is not None), "gradients")


def _ignore(_phase: str) -> None:
    pass
