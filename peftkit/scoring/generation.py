"""Answer many prompts with a causal language model, in batches, the same whatever their size."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from peftkit.errors import ResourceError, UsageError, first_line
from peftkit.models.decoder_start import settle_start
from peftkit.plugins.examples import Question
from peftkit.plugins.native import num_virtual_tokens
from peftkit.preprocessing.dialogue import Dialogue, encode_question
from peftkit.preprocessing.seq2seq_rows import cut_before_closing, encode_source, num_closing
from peftkit.recipe.strict import instead, suggest
from peftkit.recipe.tables import OWNED
from peftkit.scoring.answer_text import AnswerText
from peftkit.scoring.pieces import Pieces
from peftkit.scoring.shared import shared
from peftkit.system.exhaustion import in_batches

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

Progress = Callable[[int, int], None]
"""Called with the number of rows done and their total."""

MAX_NEW_TOKENS = 64
"""Length of an answer that neither recipe nor user limits, for every verb and every plan."""

NEUTRAL: Mapping[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "min_length": 0,
    "use_cache": True,
}
"""Stated in full, because transformers fills what is absent from the checkpoint's own sampling."""


_NOTHING: tuple[Any, ...] = ([], {}, "")
"""Values that ask for nothing, at which transformers raises."""


@dataclass(frozen=True)
class Prompts:
    """Hold encoded prompts that leave room for an answer."""

    input_ids: tuple[tuple[int, ...], ...]
    num_cut: int
    """Prompts that lost the end of their last message to make room."""
    max_tokens: int | None
    """Longest prompt that leaves room; None where positions are unbounded."""


@dataclass(frozen=True)
class Answers:
    """Hold one answer a prompt, in the prompts' order."""

    texts: tuple[str, ...]
    num_unfinished: int
    """Answers that reached the limit of new tokens without an end."""


Encode = Callable[[Question, "PreTrainedTokenizerBase"], list[int]]
"""Encode the question that a model is asked, up to where its answer begins."""


def generation_config(
    options: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, *, stop_ids: Sequence[int]
) -> GenerationConfig:
    """Make the native config: greedy and `MAX_NEW_TOKENS` long unless the options say otherwise.

    Raises:
        UsageError: an option is unknown to the installed transformers, or contradicts another.
    """
    from transformers import GenerationConfig

    known = GenerationConfig().to_dict()
    for key in options:
        if key not in known:
            raise UsageError(
                f"generation: GenerationConfig has no key {key!r}", hint=suggest(key, list(known))
            )
        if key in OWNED["generation"]:
            raise UsageError(
                f"generation.{key}: peftkit sets this key itself",
                hint=instead(OWNED["generation"][key]),
            )
    limit = {"max_new_tokens": MAX_NEW_TOKENS}
    stops = {"eos_token_id": list(stop_ids), "pad_token_id": tokenizer.pad_token_id}
    stated = {key: value for key, value in options.items() if value not in _NOTHING}
    try:
        config = GenerationConfig(**{**NEUTRAL, **stops, **limit, **stated})
        config.validate(strict=True)
    except (TypeError, ValueError) as error:
        raise UsageError(f"generation: {error}") from error
    if isinstance(config.eos_token_id, int):
        config.eos_token_id = [config.eos_token_id]
    return config


def check_answers(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    options: Mapping[str, Any],
) -> None:
    """Write two tokens, so that what only generation refuses is refused before training.

    The model and the random state are afterwards what they were.

    Raises:
        UsageError: with what transformers says of the options.
    """
    import torch

    tried = {**options, "max_new_tokens": 2}
    stops = stop_token_ids(model, tokenizer)
    config = generation_config(tried, tokenizer, stop_ids=stops)
    prompt = encode_prompt(Question(()), tokenizer)
    settle_start(model, tokenizer)
    with evaluating(model), torch.random.fork_rng(), _quiet():
        _generate(model, [prompt], config, tokenizer=tokenizer)


def stop_token_ids(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[int, ...]:
    """Collect what ends an answer: what training teaches, and the model's own end tokens."""
    named = getattr(model.generation_config, "eos_token_id", None)
    own = named if isinstance(named, list | tuple) else [] if named is None else [named]
    return tuple(sorted({*own, *Dialogue(tokenizer).stop_ids}))


def max_prompt_tokens(
    model: PreTrainedModel | PeftModel, config: GenerationConfig, *, longest: int | None = None
) -> int | None:
    """Return the longest prompt that leaves room for a whole answer; None when unbounded.

    Args:
        longest: source that the training of an encoder-decoder read.

    Raises:
        UsageError: the answer alone fills the model's positions.
    """
    from peftkit.models.load import max_positions

    positions = max_positions(model.config)
    if positions is None:
        return longest
    num_new = config.max_new_tokens or 1
    is_apart = model.config.is_encoder_decoder  # the answer has positions of its own
    room = positions - num_virtual_tokens(model) - (0 if is_apart else num_new)
    if room < 1 or num_new > positions:
        raise UsageError(
            f"max_new_tokens is {num_new}, but the model has {positions} positions"
            f" for {'an answer' if is_apart else 'prompt and answer together'}",
            hint=f"max_new_tokens={max(1, positions // 4)}",
        )
    return room if longest is None else min(room, longest)


def encode_prompt(question: Question, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Encode messages up to where the assistant's answer begins; never empty."""
    ids = encode_question(question, tokenizer) if question.messages else []
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return ids or [start]


def prompt_encoder(
    model: PreTrainedModel | PeftModel,
) -> Encode:
    """Return what encodes the question that a model is asked: as its training did."""
    return _encode_source if model.config.is_encoder_decoder else encode_prompt


def _encode_source(question: Question, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return encode_source(question.messages, tokenizer, question.rendering)


def encode_prompts(
    questions: Sequence[Question],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_tokens: int | None,
    encode: Encode = encode_prompt,
) -> Prompts:
    """Encode prompts, cutting those that are too long at the end of their last message.

    The instruction at the head and the template's opening of the answer both stay, as they do
    when training cuts a row.

    Args:
        encode: see `prompt_encoder`.
    """
    encoded, num_cut = [], 0
    for question in questions:
        ids = encode(question, tokenizer)
        if max_tokens is not None and len(ids) > max_tokens:
            closing = num_closing(partial(_encode_with, encode, tokenizer, question))
            ids = cut_before_closing(ids, max_tokens, closing)
            num_cut += 1
        encoded.append(tuple(ids))
    return Prompts(tuple(encoded), num_cut, max_tokens)


def _encode_with(
    encode: Encode,
    tokenizer: PreTrainedTokenizerBase,
    question: Question,
    text: str,
) -> list[int]:
    """Encode a question with another text in its last message."""
    *before, last = question.messages
    return encode(replace(question, messages=(*before, {**last, "content": text})), tokenizer)


def answer(  # noqa: PLR0913
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Prompts,
    *,
    config: GenerationConfig,
    batch_size: int,
    progress: Progress | None = None,
) -> Answers:
    """Generate one answer a prompt.

    Prompts of like length share a batch, padded on the left and masked, so that an answer does
    not depend on its neighbours; with a soft prompt only those of the same length, because peft
    puts it before the padding. A batch that does not fit into device memory is halved.

    Raises:
        ResourceError: even one prompt does not fit into device memory.
    """
    import torch

    settle_start(model, tokenizer)
    order = sorted(range(len(prompts.input_ids)), key=lambda i: -len(prompts.input_ids[i]))
    is_soft = num_virtual_tokens(model) > 0
    text_of = AnswerText(tokenizer)

    def answers(chosen: Sequence[int]) -> list[tuple[list[int], bool]]:
        if is_soft:
            length = len(prompts.input_ids[chosen[0]])
            chosen = [i for i in chosen if len(prompts.input_ids[i]) == length]
        rows = [prompts.input_ids[i] for i in chosen]
        return _generate(model, rows, config, tokenizer=tokenizer)

    def refusal(index: int) -> ResourceError:
        return ResourceError(
            f"generating from {len(prompts.input_ids[index])} tokens does not fit into device"
            " memory",
            hint="a smaller evaluate.generation.max_new_tokens",
        )

    def answer_all(order: Sequence[int]) -> dict[int, tuple[str, bool]]:
        found: dict[int, tuple[str, bool]] = {}
        with evaluating(model), torch.random.fork_rng(), _quiet():
            torch.manual_seed(0)  # of consequence only where the options ask for sampling
            for batch in in_batches(order, batch_size, answers, refusal):
                for index, (ids, is_finished) in batch:
                    text, is_stopped = before_stop(text_of.decode(ids), config)
                    found[index] = text, is_finished or is_stopped
                if progress:
                    progress(len(found), len(order))
        return found

    found = shared(order, answer_all)
    texts = tuple(found[i][0] for i in range(len(order)))
    return Answers(texts, sum(not is_ended for _, is_ended in found.values()))


def stream_answer(  # noqa: PLR0913
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[int],
    *,
    config: GenerationConfig,
    write: Callable[[str], None],
    seed: int = 0,
) -> tuple[str, bool]:
    """Generate one answer and write it piece by piece; the pieces join to what `answer` gives.

    Args:
        seed: of consequence only where the config asks for sampling.

    Returns: the text, and whether it came to an end by itself.
    """
    import torch

    settle_start(model, tokenizer)
    pieces = Pieces(tokenizer, set(config.eos_token_id or []), write)
    # transformers cannot stream a beam search: it does not know its answer before the end
    can_stream = (config.num_beams or 1) == 1 and not config.stop_strings
    streamer = pieces if can_stream else None
    with evaluating(model), torch.random.fork_rng(), _quiet():
        torch.manual_seed(seed)
        ((ids, is_finished),) = _generate(
            model, [prompt], config, tokenizer=tokenizer, streamer=streamer
        )
    if not config.stop_strings:
        return pieces.finish(ids), is_finished
    text, is_stopped = before_stop(AnswerText(tokenizer).decode(ids), config)
    write(text)
    return text, is_finished or is_stopped


def before_stop(text: str, config: GenerationConfig) -> tuple[str, bool]:
    """Return what of an answer stands before the first of its stop strings, and if there is one."""
    stated = config.stop_strings or ()
    stops = [stated] if isinstance(stated, str) else list(stated)
    found = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(found)] if found else text, bool(found)


def _generate(
    model: PreTrainedModel | PeftModel,
    rows: Sequence[Sequence[int]],
    config: GenerationConfig,
    *,
    tokenizer: PreTrainedTokenizerBase,
    streamer: Pieces | None = None,
) -> list[tuple[list[int], bool]]:
    """Generate for one batch; return new tokens up to the end, and whether there was one.

    An encoder counts positions from the left, so that its rows are padded on the right.
    """
    import torch

    from peftkit.scoring.decoding import loop_for

    width = max(map(len, rows))
    pad_id = config.pad_token_id or 0
    device = model.get_input_embeddings().weight.device
    is_encoder_decoder = model.config.is_encoder_decoder

    def padded(row: Sequence[int], fill: int) -> list[int]:
        pads = [fill] * (width - len(row))
        return [*row, *pads] if is_encoder_decoder else [*pads, *row]

    input_ids = torch.tensor([padded(row, pad_id) for row in rows])
    mask = torch.tensor([padded([1] * len(row), 0) for row in rows])
    with torch.no_grad(), _refused_explained():
        made = model.generate(
            input_ids=input_ids.to(device),
            attention_mask=mask.to(device),
            generation_config=config,
            **({"streamer": streamer} if streamer else loop_for(model, config)),
            **({"tokenizer": tokenizer} if config.stop_strings else {}),
        )
    stops = set(config.eos_token_id or [])
    cut = []
    num_given = 1 if is_encoder_decoder else width  # what a decoder starts with
    for ids in made[:, num_given:].tolist():
        end = next((at for at, token in enumerate(ids) if token in stops), None)
        cut.append((ids if end is None else ids[:end], end is not None))
    return cut


@contextmanager
def evaluating(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Switch dropout off, and back on afterwards if the model was training."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextmanager
def _refused_explained() -> Iterator[None]:
    """Tell of the options what transformers finds out about them when it writes only."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"generation: {first_line(error)}",
            hint="change that option, or delete it; --traceback shows where this was raised",
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence peft's remark that a soft prompt makes its own position ids, as it should."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Position ids are not supported")
        yield
