"""Rehearse a recipe's step on fake tensors: the model once, then a few layers at two sizes.

The whole model is built, so that weights, adapter, gradients and optimizer are counted one by
one. Forward and backward run over the layers that stand for all: once as the recipe has it, and
once at another size with one more of the repeated layers. The two must tell the same story of the
whole model; if they do not, all layers are run.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from peftkit.memory import step
from peftkit.memory.fake import (
    FakeModel,
    build_skeleton,
    explained_operators,
    materialize,
)
from peftkit.memory.growth import (
    Footprint,
    explain_growth,
    make_size,
    second_bytes,
    virtual_tokens,
)
from peftkit.memory.known_loss import known_loss, rehearsed_loss, tile_of
from peftkit.memory.layers import choose_layers, find_stacks, kept_layers
from peftkit.memory.second_point import second_point
from peftkit.memory.sharing import ALONE, DDP, Sharing
from peftkit.memory.simulate import Kept, state_tensors, track_micro_batch, track_update
from peftkit.memory.terms import COLLECTIVES, RUNTIME
from peftkit.memory.trace import (
    Program,
    Repeat,
    Trace,
    compile_trace,
    fixed_work,
    join_programs,
    sum_work,
)
from peftkit.models.stored_quantization import stored_quantizer
from peftkit.plugins.native import native_model

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, TrainingArguments

    from peftkit.memory.layers import Stack
    from peftkit.memory.step import StepSettings
    from peftkit.memory.tracker import Tracker
    from peftkit.plugins import Point
    from peftkit.plugins.losses import Loss
    from peftkit.recipe.build import Built


@dataclass(frozen=True)
class Rehearsal:
    """Hold what a step does at any size, and what it computes at the recipe's."""

    footprint: Footprint
    work: dict[str, tuple[int, ...]]
    """Phase -> flops, moved bytes, operators, bytes copied to the host and back, attention's flops;
    then, of the first two, what does not depend on the batch."""
    notes: tuple[str, ...]
    """What the replay at other sizes is not exact about."""


class Rehearsed:
    """Hold a recipe's fake model, ready to be run at any size."""

    def __init__(
        self,
        built: Built,
        config: PretrainedConfig,
        *,
        device: str,
        scored_share: float = 1.0,
        sharing: Sharing = ALONE,
    ) -> None:
        """Build the model with its adapter, its optimizer and its checkpointing."""
        from torch._subclasses.fake_tensor import FakeTensorMode

        self.method, self.adapter = built.method, built.adapter
        self.device, self.sharing = device, sharing
        self.args: TrainingArguments = built.method.config
        self.settings: StepSettings = step.StepSettings.of(self.args, "cpu")
        self.way = built.method.way(config)
        self._loss = known_loss(built, config)
        self.fuses_head = built.method.fuses_head and not self.way.scores_trained
        # trl's head scores every position where it has no kernel.
        scores_all = self.fuses_head and device != "cuda"
        self.scored_share = 1.0 if scores_all else scored_share
        self.num_sequences = built.method.num_sequences
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._make = partial(self._make_model, built, config)
        self.fake: FakeModel = self._make()
        self.model = self.fake.model
        self.virtual = virtual_tokens(self.model)
        self.config = self.model.config
        self.tile = tile_of(self.way, self.model, device)
        share = 1.0 if self.fuses_head else self.scored_share
        self.tile_tokens = math.ceil(self.tile / share)
        self.stacks = find_stacks(self.model)
        # The update does not depend on the batch, so one serves every size.
        self._updates: dict[int, tuple[Trace, Trace]] = {}

    def _make_model(self, built: Built, config: PretrainedConfig) -> FakeModel:
        """Make the model of fake tensors, with all that changes what its step keeps."""
        skeleton = build_skeleton(
            config,
            built.recipe.model,
            kind=built.method.kind,
            quantizer=built.quantizer or stored_quantizer(config.to_dict()),
            adapter=built.adapter,
        )
        step.set_checkpointing(skeleton.model, self.args)
        if step.offloads_checkpoints(self.args):
            from peftkit.memory.offload import hold_checkpoints_on_host

            hold_checkpoints_on_host(skeleton.model)
        fake = materialize(skeleton, self.mode)
        model = fake.model.train()
        built.method.prepare_model(model)
        if self.fuses_head:
            from peftkit.memory.fused_head import attach_fused_head

            attach_fused_head(
                native_model(model),
                has_triton=self.device == "cuda",
                scored_share=self.scored_share,
            )
        return fake

    @property
    def trained(self) -> list[torch.nn.Parameter]:
        """Return the parameters that are trained."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def rehearse(self, point: Point, *, held: int = 0, block: int = 1) -> Rehearsal:
        """Run the step at a point and at a second one, and learn how it grows.

        Args:
            held: bytes that the device's runtime takes beside all tensors.
            block: what the allocator rounds every request up to.

        Raises:
            PlanningError: an operator cannot run without values.
        """
        from peftkit.memory.assumed import AssumedValues

        if held not in self._updates:
            # What it reads are tables and counts of steps; no size of its depends on them.
            with explained_operators(), AssumedValues():
                self._updates[held] = self._update(held)
        update, before = self._updates[held]
        other = second_point(point, self.config, self.tile_tokens // self.num_sequences)
        with explained_operators(), AssumedValues() as assumed:
            first, program, works, grown = self._compare(point, other, self._blocks())
            if grown is None:
                first, program, works, grown = self._compare(point, other, (0, 0))
        notes = [assumed.note] if assumed.num_read else []
        notes += [_OWN_POOL] if self.method.offloads_activations else []
        if grown is None:
            notes.append("the step does other things at other sizes: they are estimates")
            grown = _array(first.num_bytes) * other.num_tokens // point.num_tokens
        sizes = (self._size(point), self._size(other))
        growth = explain_growth(_array(first.num_bytes), grown, sizes)
        after = compile_trace(update, without="load")
        load = compile_trace(before)
        footprint = Footprint(
            join_programs([load, program, after]), growth,
            _array(before.num_bytes), _array(update.num_bytes),
            block, self.virtual, self.scored_share,
            (point.micro_batch, point.length, _array(first.num_bytes)), self.num_sequences,
            self.tile,
        )  # fmt: skip
        if growth.num_unexplained:
            notes.append(f"{growth.num_unexplained} tensors grow in no simple way: estimated")
        fixed = fixed_work(*works, (self._tokens(point), self._tokens(other)))
        work = {phase: (*counts, *fixed[phase]) for phase, counts in works[0].items()}
        work |= sum_work(update)
        return Rehearsal(footprint, work, tuple(notes))

    def _compare(
        self, point: Point, other: Point, times: tuple[int, int]
    ) -> tuple[Trace, Program, tuple[Any, Any], Any]:
        """Run at two points; return the first run, both works, and its bytes in the second."""
        first, program, repeats = self._micro_batch(point, times=times[0])
        second, other_program, more = self._micro_batch(other, times=times[1])
        grown = second_bytes(
            program, other_program, _array(first.num_bytes), _array(second.num_bytes)
        )
        works = sum_work(first, repeats), sum_work(second, more)
        return first, program, works, grown

    def _tokens(self, point: Point) -> int:
        """Return the positions of a batch, those of prompt learning included."""
        return point.micro_batch * self.num_sequences * (point.length + self.virtual.num)

    def _micro_batch(self, point: Point, *, times: int) -> tuple[Trace, Program, list[Repeat]]:
        """Run forward and backward; `times` middle blocks of a repetition, 0 for all layers."""
        with self.kept(times) as (kept, repeats), self.mode:
            for parameter in self.trained:
                has_gradient = self.settings.accumulation > 1
                parameter.grad = _like(parameter) if has_gradient else None
            trace = self._track(self.model, point, kept)
        return trace, compile_trace(trace, repeats, without="load"), repeats

    def _track(self, model: Any, point: Point, kept: Sequence[Kept]) -> Trace:
        """Follow a micro-batch of a model, the recipe's own or one made of it."""
        with self.kernels(model), self.attending(model):
            return track_micro_batch(
                model,
                partial(self._make_batch, point),
                self.loss_at(point),
                self.settings,
                kept=kept,
                saving=partial(self._saving, model),
                storage=self.fake.storage,
            )

    def attending(self, model: Any) -> AbstractContextManager[None]:
        """Let a model's attention keep to rows while it trains, where the method's does."""
        from peftkit.kernels.row_attention import attending

        return attending(native_model(model), by_rows=self.way.by_rows)

    def loss_at(self, point: Point) -> Loss:
        """Return the loss that is run at a point, where labels have no values."""
        return rehearsed_loss(self._loss, self.way, self._size(point).num_scored, self.device)

    def _make_batch(self, point: Point) -> dict[str, Any]:
        from peftkit.memory.batch import make_batch

        has_types = getattr(self.config, "type_vocab_size", 0) > 1
        return make_batch(self.method, point, has_types=has_types)

    def kernels(self, model: Any | None = None) -> AbstractContextManager[Any]:
        """Return what makes the CPU's operators allocate as the planned device's."""
        if self.device == "cpu":
            return nullcontext()
        from peftkit.memory.cuda_kernels import cuda_kernels

        return cuda_kernels(model or self.model)

    def _blocks(self) -> tuple[int, int]:
        """Return how many middle blocks of a repetition the two runs have.

        What trl holds back of offloaded tensors may be the inputs of as many layers: what stands
        for the layers left out must come after all of them.
        """
        if not self.method.offloads_activations:
            return 1, 2
        from peftkit.memory.offload import NUM_STASHED

        return NUM_STASHED + 1, NUM_STASHED + 2

    def _saving(self, model: Any, tracker: Tracker) -> AbstractContextManager[Any]:
        """Return what keeps saved tensors on the host where the recipe says so."""
        if not self.method.offloads_activations:
            return nullcontext()
        from peftkit.memory.offload import OffloadedActivations

        return OffloadedActivations(model.parameters(), tracker)

    @contextmanager
    def kept(
        self, times: int, model: Any | None = None
    ) -> Iterator[tuple[list[Kept], list[Repeat]]]:
        """Keep the layers that stand for all; give them, and how often the repeated ones come.

        Args:
            times: blocks of a repetition that are kept between its first and its last; 0 keeps
                every layer.
            model: one made like the recipe's own, which is meant when it is absent.
        """
        kept, repeats = [], []
        with ExitStack() as stack:
            for found in self.stacks:
                chosen, repeated = self._choose(found, times)
                stack.enter_context(kept_layers(model or self.model, found, chosen))
                kept.append(Kept(found, tuple(chosen)))
                repeats += repeated
            yield kept, repeats

    def _choose(self, stack: Stack, times: int) -> tuple[list[int], list[Repeat]]:
        if times == 0:
            return list(range(len(stack.signatures))), []
        return choose_layers(stack, times=times)

    def _update(self, held: int) -> tuple[Trace, Trace]:
        """Run clipping and the optimizer; return that, and all that is there before a batch."""
        from peftkit.memory.tracker import Tracker

        keywords = {"foreach": True} if self._prefers_foreach() else {}
        with self.mode, warnings.catch_warnings():
            # The fake parameters lie on the CPU; `state_tensors` knows what is paged on a GPU.
            warnings.filterwarnings("ignore", "Paged optimizers are not supported on CPU")
            optimizer = step.make_optimizer(self.model, self.method, **keywords)
            trained = self.trained
            self._give_gradients()
            optimizer.step()  # makes the state that the step below finds
            self._give_gradients()  # some optimizers drop what they have used
            update = track_update(trained, optimizer, self.settings, device=self.device)
        tracker = Tracker()
        if held:
            tracker.reserve(held, RUNTIME)
        for term, tensors in self.fake.terms.items():
            tracker.hold(tensors, term)
        tracker.hold(state_tensors(optimizer, device=self.device), "optimizer")
        for num_bytes in self.adapter.state_bytes(self.model) if self.adapter else ():
            tracker.reserve(num_bytes, "optimizer")
        if self.sharing.strategy == DDP:
            # One bucket or several, they hold every gradient once more: accelerate leaves torch's
            # `gradient_as_bucket_view` off.
            buckets = sum(p.numel() * p.element_size() for p in trained)
            tracker.reserve(buckets, COLLECTIVES)
        if self.settings.accumulation > 1:
            with self.mode:
                gradients = self._earlier_gradients()
            tracker.hold(gradients, "gradients")
        return update, tracker.finish()

    def _give_gradients(self) -> None:
        for parameter in self.trained:
            parameter.grad = _like(parameter)

    def _earlier_gradients(self) -> list[torch.Tensor]:
        """Return the gradients that earlier micro-batches of the step have left."""
        return [_like(parameter) for parameter in self.trained]

    def _prefers_foreach(self) -> bool:
        """Tell whether torch's optimizer would work on lists on the planned device, as on CUDA."""
        return self.device == "cuda" and str(self.args.optim) in _FOREACH

    def _size(self, point: Point) -> Any:
        return make_size(
            point.micro_batch * self.num_sequences, point.length,
            virtual=self.virtual, scored_share=self.scored_share, tile=self.tile,
        )  # fmt: skip


_OWN_POOL = (
    "activation_offloading brings tensors back on a stream of its own: free blocks that CUDA's"
    " allocator keeps for that stream"
)
_FOREACH = ("adamw_torch", "sgd", "adagrad", "rmsprop")
"""Optimizers of torch that transformers makes without saying how they loop."""


def _like(parameter: torch.nn.Parameter) -> torch.Tensor:
    import torch

    return torch.empty_like(parameter, requires_grad=False)


def _array(values: Sequence[int]) -> Any:
    import numpy as np

    return np.array(values, np.int64)
