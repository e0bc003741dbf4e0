"""Plan what scoring takes after training: prompts with their keys and values, and rows read.

Generation is not a step, so that it is followed at the recipe's own sizes and not replayed at
others: the prompts, then the last answer token, for which everything before is cached.
What `peftkit.scoring.generation` and `.perplexity` do with a model is done on fake tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from peftkit.adapters.switched_off import keeps_base
from peftkit.memory.fake import explained_operators
from peftkit.memory.trace import compile_trace
from peftkit.models.load import max_positions
from peftkit.plugins.native import accepted_inputs
from peftkit.scoring.at_once import tokens_at_once
from peftkit.scoring.generation import MAX_NEW_TOKENS, NEUTRAL, evaluating
from peftkit.scoring.perplexity import LOGITS_BYTES, MAX_ROWS, UPCAST_TOKENS

if TYPE_CHECKING:
    import torch

    from peftkit.memory.batch_shape import BatchShape
    from peftkit.memory.fake_step import Rehearsed
    from peftkit.memory.runtime import Runtime
    from peftkit.recipe.build import Built
    from peftkit.recipe.schema import Recipe


@dataclass(frozen=True)
class EvaluationPeak:
    """Say what a stage of scoring takes at most; optimizer and gradients are gone by then."""

    num_bytes: int
    """Everything that is alive, weights and runtime included."""
    stage: str
    """`prompts` (all of them go through the model), `answers` (their last token) or `rows`
    (whose tokens' likelihoods are read)."""
    rows: int
    length: int
    """Tokens a row: of the prompt, of prompt and answer, or of the row."""
    cache_bytes: int
    """Keys and values at their longest; 0 where nothing is generated."""

    def describe(self) -> str:
        """Say which rows take it, for a person."""
        what = {"prompts": "prompts", "answers": "prompts with their answers", "rows": "rows"}
        return f"{self.rows:,} {what[self.stage]} of {self.length:,} tokens"


def evaluation_peaks(
    rehearsed: Rehearsed, built: Built, *, length: int, runtime: Runtime, target_length: int = 0
) -> tuple[EvaluationPeak, ...]:
    """Plan the stages of the evaluation that a recipe asks for; none where it asks for none.

    Args:
        length: tokens of the longest training row, which no prompt and no row is taken to exceed.
        target_length: the same of what an encoder-decoder writes.
    """
    section = built.recipe.evaluate
    if section is None:
        return ()
    scoring = _Scoring(rehearsed, runtime, _held_twice(rehearsed, built.recipe))
    batch_size = min(section.batch_size, section.limit or section.batch_size)
    if built.method.scores_by_reading:
        return (scoring.read_texts(batch_size, length),)
    if built.method.target_option is not None:
        num_new = int(section.generation.get("max_new_tokens", MAX_NEW_TOKENS))
        rows = batch_size * int(section.generation.get("num_beams", 1))
        return (
            scoring.read_targets(length, target_length),
            *scoring.write_targets(rows, length, num_new),
        )
    found = [scoring.read_rows(length)]
    if built.task.headline:  # running text asks nothing
        options = section.generation
        num_new = int(options.get("max_new_tokens", MAX_NEW_TOKENS))
        positions = max_positions(rehearsed.config)
        room = length if positions is None else max(1, positions - num_new)
        rows = batch_size * int(options.get("num_beams", 1))
        found += scoring.generate(rows, min(length, room), num_new, options)
    return tuple(found)


def worst_stage(
    rehearsed: Rehearsed, built: Built, shape: BatchShape, runtime: Runtime
) -> EvaluationPeak | None:
    """Return the stage of an evaluation that takes most; None where none is asked for.

    Args:
        shape: of the training's rows, whose longest are scored.
    """
    peaks = evaluation_peaks(
        rehearsed,
        built,
        length=shape.length,
        target_length=shape.target_length,
        runtime=runtime,
    )
    return max(peaks, key=lambda peak: peak.num_bytes, default=None)


def _held_twice(rehearsed: Rehearsed, recipe: Recipe) -> int:
    """Return the bytes of a base that is loaded beside the tuned model, to be scored too."""
    if recipe.model.config is not None or keeps_base(rehearsed.model):
        return 0
    return sum(tensor.untyped_storage().nbytes() for tensor in rehearsed.fake.terms["base"])


@dataclass(frozen=True)
class _Scoring:
    rehearsed: Rehearsed
    runtime: Runtime
    num_held: int
    """Bytes of a second model."""

    def read_rows(self, length: int) -> EvaluationPeak:
        """Follow the batch whose tokens' likelihoods are read, as `perplexity.token_loss` does.

        Every token is taken to be trained, which makes the most logits.
        """
        import torch

        rows, kept = self._rows_read(length, length - 1)

        def read() -> Any:
            picked = torch.empty(kept, dtype=torch.int64)
            return _score(self._forward(rows, length, use_cache=False, logits_to_keep=picked))

        (peak,) = self._of_all_layers(lambda: (self._peak(read),))
        return EvaluationPeak(peak, "rows", rows, length, 0)

    def read_texts(self, rows: int, length: int) -> EvaluationPeak:
        """Follow the longest texts through a model that reads them once."""
        (peak,) = self._of_all_layers(
            lambda: (self._peak(lambda: self._forward(rows, length, use_cache=None)),)
        )
        return EvaluationPeak(peak, "rows", rows, length, 0)

    def read_targets(self, length: int, target_length: int) -> EvaluationPeak:
        """Follow the batch whose targets' likelihoods are read."""
        rows, _ = self._rows_read(length, target_length)
        peak = self._peak(
            lambda: _score(self._decode(rows, length, target_length, use_cache=False))
        )
        return EvaluationPeak(peak, "rows", rows, length, 0)

    def write_targets(self, rows: int, length: int, num_new: int) -> list[EvaluationPeak]:
        """Follow sources through the encoder, and the last token that is written of each."""
        prompts = self._peak(lambda: self._next(self._decode(rows, length, 1)))
        with self._fake():
            before = self._decode(rows, length, max(1, num_new - 1))
            read, cache = (before.encoder_last_hidden_state,), before.past_key_values
            del before
        cache_bytes = sum(tensor.untyped_storage().nbytes() for tensor in _cached(cache))
        answers = self._peak(
            lambda: self._next(
                self._decode(rows, length, 1, encoder_outputs=read, past_key_values=cache)
            ),
            chain(read, _cached(cache)),  # a list would hold what the cache drops
        )
        return [
            EvaluationPeak(prompts, "prompts", rows, length, cache_bytes),
            EvaluationPeak(answers, "answers", rows, length + num_new, cache_bytes),
        ]

    def _rows_at_once(self, rows: int, length: int) -> int:
        at_once = tokens_at_once(self.rehearsed.device)
        return rows if at_once is None else max(1, min(rows, at_once // length))

    def _rows_read(self, length: int, num_trained: int) -> tuple[int, int]:
        """Return the rows that are read at once, and the logits that each of them keeps."""
        model = self.rehearsed.model
        vocab_size = int(model.get_input_embeddings().weight.shape[0])
        budget = max(1, LOGITS_BYTES // (vocab_size * model.dtype.itemsize))
        kept = max(1, min(num_trained, budget))
        return self._rows_at_once(min(MAX_ROWS, budget // kept), length), kept

    def _decode(self, rows: int, length: int, num_written: int, **options: Any) -> Any:
        """Run an encoder over sources, unless its outputs are given, and the decoder."""
        import torch

        # Generation caches, whatever a configuration says that a trainer wrote
        options = {"use_cache": True, **options}
        if "encoder_outputs" not in options:
            options["input_ids"] = torch.empty((rows, length), dtype=torch.int64)
        return self.rehearsed.model(
            attention_mask=torch.empty((rows, length), dtype=torch.int64),
            decoder_input_ids=torch.empty((rows, num_written), dtype=torch.int64),
            **options,
        )

    def generate(
        self, rows: int, length: int, num_new: int, options: Mapping[str, Any]
    ) -> list[EvaluationPeak]:
        """Follow the prompts, and the last token of their answers.

        Args:
            options: of the generation.
        """
        from transformers import GenerationConfig

        from peftkit.scoring.decoding import why_not

        if why_not(self.rehearsed.model, GenerationConfig(**{**NEUTRAL, **options})):
            (prompts,) = self._of_all_layers(
                lambda: (self._peak(lambda: self._next(self._forward(rows, length))),)
            )
            answers, cache_bytes = self._of_all_layers(
                lambda: self._last_token(rows, length + num_new)
            )
        else:
            group = self._rows_at_once(rows, length)
            *reading, answers, cache_bytes = self._of_all_layers(
                lambda: self._in_room(rows, group, length, num_new)
            )
            prompts = max(reading)
        return [
            EvaluationPeak(prompts, "prompts", rows, length, cache_bytes),
            EvaluationPeak(answers, "answers", rows, length + num_new, cache_bytes),
        ]

    def _in_room(self, rows: int, group: int, length: int, num_new: int) -> tuple[int, ...]:
        """Follow `peftkit.scoring.decoding`, which reads prompts in groups into room for answers.

        Returns: the peaks of the first group, of what it read beside the room that this moves to,
            of a later group and of the last token, and the room's bytes.
        """
        import torch

        from peftkit.scoring.decoding import Room

        def read() -> Any:
            return self._next(self._forward(group, length))

        with self._fake():
            cache = self._forward(group, length).past_key_values
            held = list(_cached(cache))
            cache.layers = [layer for layer in cache.layers if layer.is_initialized]
            rooms = [Room(rows, length + num_new - 2, 1) for _ in cache.layers]
            for room, layer in zip(rooms, cache.layers, strict=True):
                room.put(0, layer)
            cache.layers = rooms
            vocab_size = self.rehearsed.model.get_input_embeddings().weight.shape[0]
            logits = torch.empty((rows, vocab_size))  # behind the prompts read so far
        whole = list(_cached(cache))
        first, moved = self._peak(read), self._peak(lambda: None, [*held, *whole])
        later = self._peak(read, [*whole, logits]) if group < rows else 0
        last = self._peak(
            lambda: self._next(
                self._forward(rows, 1, mask=length + num_new - 1, past_key_values=cache)
            ),
            whole,
        )
        return first, moved, later, last, sum(one.untyped_storage().nbytes() for one in whole)

    def _last_token(self, rows: int, length: int) -> tuple[int, int]:
        """Return the peak of one more token when all before are cached, and the cache's bytes."""
        with self._fake():
            cache = self._forward(rows, length - 1).past_key_values
        cache_bytes = sum(tensor.untyped_storage().nbytes() for tensor in _cached(cache))
        # Held by nobody but the cache, whose layers drop each tensor as they make a longer one.
        peak = self._peak(
            lambda: self._next(self._forward(rows, 1, mask=length, past_key_values=cache)),
            _cached(cache),
        )
        return peak, cache_bytes

    def _of_all_layers(self, measure: Callable[[], tuple[int, ...]]) -> list[int]:
        """Measure with few of the repeated layers, and one more: each of the rest adds the same.

        Without gradients a layer leaves nothing behind but its keys and values.
        """
        found = []
        for num_kept in (1, 2):
            with self.rehearsed.kept(num_kept) as (_, repeats):
                if len(repeats) != 1:
                    break
                found.append((measure(), repeats[0].times))
        if len(found) < 2:
            return list(measure())
        (first, times), (second, _) = found
        return [one + (times - 1) * (more - one) for one, more in zip(first, second, strict=True)]

    def _forward(self, rows: int, length: int, *, mask: int | None = None, **options: Any) -> Any:
        import torch

        model = self.rehearsed.model
        ids = torch.empty((rows, length), dtype=torch.int64)
        options = {
            "input_ids": ids,
            "attention_mask": torch.empty((rows, mask or length), dtype=torch.int64),
            "use_cache": True,
            "logits_to_keep": 1,
            **options,
        }
        if options["use_cache"] is None:  # a classifier's own default
            del options["use_cache"]
        elif options["use_cache"]:  # generation counts positions from each row's first real token
            options["position_ids"] = torch.empty_like(ids)
        known = accepted_inputs(model)
        for name in ("logits_to_keep", "position_ids"):
            if name not in known:
                options.pop(name, None)
        return model(**options)

    def _next(self, outputs: Any) -> Any:
        """Choose the next token as transformers' greedy search does: from a copy in float32."""
        import torch

        chosen = outputs.logits[:, -1, :].to(copy=True, dtype=torch.float32).argmax(-1)
        return outputs, chosen

    def _fake(self) -> Any:
        from contextlib import ExitStack

        import torch

        from peftkit.memory.assumed import AssumedValues

        stack = ExitStack()
        for context in (
            evaluating(self.rehearsed.model), torch.no_grad(), explained_operators(),
            AssumedValues(), self.rehearsed.mode, self.rehearsed.kernels(),
        ):  # fmt: skip
            stack.enter_context(context)
        return stack

    def _peak(self, run: Callable[[], Any], held: Iterable[torch.Tensor] = ()) -> int:
        import numpy as np

        from peftkit.memory.tracker import Tracker

        tracker = Tracker(self.rehearsed.fake.storage)
        tracker.reserve(self.runtime.num_bytes + self.num_held, "runtime")
        for term, tensors in self.rehearsed.fake.terms.items():
            tracker.hold(tensors, term)
        tracker.hold(held, "activations")
        tracker.enter("evaluate")
        with self._fake(), tracker:
            result = run()
            trace = tracker.finish()
            del result
        sizes = np.array(trace.num_bytes, np.int64)
        return compile_trace(trace).peak(sizes, block=self.runtime.block)


def _score(outputs: Any) -> Any:
    """Do what `peftkit.scoring.perplexity` does with logits, every token taken to be trained."""
    import torch

    trained = torch.empty_like(outputs.logits)
    upcast = trained.flatten(0, 1)[:UPCAST_TOKENS].float()
    return outputs, trained, torch.log_softmax(upcast, -1)


def _cached(cache: Any) -> Iterable[torch.Tensor]:
    """Give the tensors of a cache, whatever kind its layers are."""
    import torch

    halves = [getattr(cache, f"{name}_attention_cache", None) for name in ("self", "cross")]
    for one in [half for half in halves if half is not None] or [cache]:
        for layer in one.layers:
            yield from (value for value in vars(layer).values() if isinstance(value, torch.Tensor))


def unplanned_scoring(built: Built) -> tuple[str, ...]:
    """Say why what scores a recipe's model after training is not planned; nothing where it is."""
    method, name = built.method, built.recipe.method.name
    is_generated = method.kind.answers == "text" and not method.has_evaluator
    is_known = is_generated or method.scores_by_reading
    if built.recipe.evaluate is None or is_known:
        return ()
    return (f"scoring after training, which method.{name} does in a way of its own",)
