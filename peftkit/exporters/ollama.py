"""Ollama: a GGUF file and the Modelfile whose template is the one trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peftkit.errors import ArtefactError
from peftkit.exporters.chat_turns import Message, Turns, held_out, learn_turns, render
from peftkit.exporters.gguf_file import OutType, write_gguf
from peftkit.exporters.go_template import PLAIN, go_template
from peftkit.exporters.model_folder import generation_config, load_tokenizer, stop_ids
from peftkit.plugins import Exporter
from peftkit.plugins.exported import Exported, Proof, Trained

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WEIGHTS = "model.gguf"
_SAMPLING = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}
"""generation_config.json's words -> Ollama's."""


@dataclass(frozen=True)
class OllamaOptions:
    """Choose how the weights are stored."""

    outtype: OutType = "auto"
    """As for gguf: `f32`, `f16`, `bf16`, `q8_0`, or `auto` for the model's own dtype."""


class Ollama(Exporter):
    """Write model.gguf and a Modelfile for `ollama create`."""

    Config = OllamaOptions
    reads = "model"

    def export(self, trained: Trained, out: Path) -> Exported:
        """Translate the chat template first, which may be refused, then write the weights."""
        tokenizer = load_tokenizer(trained.folder)
        has_template = tokenizer.chat_template is not None
        turns = learn_turns(tokenizer) if has_template else None
        modelfile = out / "Modelfile"
        text = _modelfile(turns, tokenizer, trained.folder)
        # The template writes every token of a prompt itself, the first one included.
        weights = write_gguf(
            trained, out, self.config.outtype, adds_ends=turns is None, name=_WEIGHTS
        )
        modelfile.write_text(text, encoding="utf-8")
        proofs = list(weights.proofs)
        if turns is not None:
            proofs.append(_compare_prompts(turns, tokenizer, trained.texts))
        notes = [*weights.notes, *_limits(turns)]
        return Exported((*weights.files, modelfile), tuple(proofs), tuple(notes))


def _modelfile(turns: Turns | None, tokenizer: PreTrainedTokenizerBase, folder: Path) -> str:
    template = go_template(turns) if turns is not None else PLAIN
    lines = [f"FROM ./{_WEIGHTS}", f'TEMPLATE """{template}"""']
    lines += [f"PARAMETER stop {_quoted(token)}" for token in _stops(tokenizer, folder)]
    lines += [f"PARAMETER {name} {value}" for name, value in _sampling(folder)]
    return "\n".join(lines) + "\n"


def _stops(tokenizer: PreTrainedTokenizerBase, folder: Path) -> Iterator[str]:
    """Name the tokens that end an answer."""
    for index in stop_ids(folder, tokenizer):
        token = tokenizer.convert_ids_to_tokens(index)
        if isinstance(token, str):
            yield token


def _quoted(token: str) -> str:
    """Quote a value for a Modelfile, which knows no escapes: a quote ends it only at a line's end.

    Raises:
        ArtefactError: the token cannot be written there.
    """
    if not token.isprintable() or '"' in token:
        raise ArtefactError(
            f"the token {token!r}, which ends an answer, cannot stand in a Modelfile",
            hint="--to gguf needs no Modelfile",
        )
    return f'"{token}"'


def _sampling(folder: Path) -> Iterator[tuple[str, float]]:
    """Translate what the model's generation config states, if it samples at all."""
    config = generation_config(folder)
    if config.get("do_sample"):
        for ours, theirs in _SAMPLING.items():
            value = config.get(ours)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                yield theirs, value


def _compare_prompts(
    turns: Turns, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> Proof:
    """Count the tokens in which prompts differ from the ones trained on."""
    conversations: list[list[Message]] = list(held_out(turns))
    conversations += [[{"role": "user", "content": text.strip()}] for text in texts]
    num_tokens = num_different = 0
    for messages in conversations:
        wanted = tokenizer(render(tokenizer, messages) or "", add_special_tokens=False).input_ids
        found = tokenizer(turns.render(messages), add_special_tokens=False).input_ids
        num_tokens += len(wanted)
        num_different += sum(a != b for a, b in zip(wanted, found, strict=False))
        num_different += abs(len(wanted) - len(found))
    detail = f"{num_tokens} tokens of {len(conversations)} prompts, against the chat template"
    return Proof("prompts", float(num_different), 0.0, detail)


def _limits(turns: Turns | None) -> list[str]:
    if turns is None:
        return ["the model has no chat template: Ollama gives it the bare prompt"]
    notes = ["tool calls are not in Ollama's template"]
    if turns.trims:
        notes.append(
            "the chat template strips white space around a message; Ollama cannot: send none"
        )
    if turns.thinks:
        notes.append("the chat template drops earlier <think> parts; Ollama sends them again")
    if not turns.takes_system:
        notes.append("the chat template takes no system message; Ollama leaves it out")
    return notes
