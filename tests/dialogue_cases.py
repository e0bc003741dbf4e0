"""Random templates, tokenizers, roles and contents, and what must hold of what is trained of them.

    python tests/dialogue_cases.py NUM_CASES

prints how many cases held, and how many of them were refused by name.
"""

from __future__ import annotations

import functools
import random
import sys
from collections import Counter
from dataclasses import dataclass

from peftkit.errors import DataError
from peftkit.plugins import Conversation, Question
from peftkit.plugins.rendering import Rendering
from peftkit.plugins.rows import IGNORED
from peftkit.preprocessing.dialogue import Dialogue
from peftkit.preprocessing.turns import Turn, lay_out, without_marks

KINDS = ("byte-level", "bpe", "unigram", "wordpiece")
SPECIAL = ("<|endoftext|>", "<|pad|>", "<unk>", "<s>", "<|im_start|>", "<|im_end|>", "<|end|>")
ADDED = ("<think>", "</think>", "<tool_call>", "</tool_call>")
PIECES = (
    "sort keys", "naïve café", "東京タワー", "مرحبا", "नमस्ते", "Größe", "Ωμέγα", "🙂👩‍👩‍👧",
    "x = {'a': 1}",
    "    return 1", "\ttab", "\n", "\n\n", "  ", "{{ m }} {% if %}", "<|im_end|>",
    "<|im_start|>user",
    "<s>", "<|endoftext|>", "<think>", "</think>", "\\n", '"quoted"', "a|b<c>", "1,234.5",
    "e\u0301",
    "\U00100000", "\u200b", "<|im_", "end|>",
)  # fmt: skip
HEADERS = ("<|im_start|>{}\n", "<|im_start|>{}", "### {}:\n", "[{}] ", "{}: ")
ENDS = ("<|im_end|>\n", "<|im_end|>", "<|end|>\n", "<|endoftext|>", "<|endoftext|>\n\n", " <|end|>")


@dataclass(frozen=True)
class Case:
    """Hold one random conversation with a tokenizer that has a random template."""

    kind: str
    template: str
    messages: tuple[dict, ...]
    rendering: Rendering


@functools.cache
def tokenizer_of(kind: str):
    """Train a small tokenizer of one kind on texts of many scripts."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    texts = [" ".join(PIECES), *PIECES, "the sum of two numbers and sort keys by name", "user:"]
    alphabet = sorted({character for text in texts for character in text})
    common = {"special_tokens": list(SPECIAL), "show_progress": False, "vocab_size": 600}
    if kind == "byte-level":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(initial_alphabet=alphabet, **common)
    elif kind == "bpe":
        made = Tokenizer(models.BPE(unk_token="<unk>"))
        made.normalizer = normalizers.Replace(" ", "▁")
        made.decoder = decoders.Replace("▁", " ")
        trainer = trainers.BpeTrainer(initial_alphabet=alphabet, **common)
    elif kind == "unigram":
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        made.decoder = decoders.Metaspace(prepend_scheme="first")
        trainer = trainers.UnigramTrainer(unk_token="<unk>", initial_alphabet=alphabet, **common)
    else:
        made = Tokenizer(models.WordPiece(unk_token="<unk>"))
        made.normalizer = normalizers.BertNormalizer(lowercase=True)
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(initial_alphabet=alphabet, **common)
    made.train_from_iterator(texts * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=SPECIAL[0], pad_token=SPECIAL[1], unk_token="<unk>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL[3:])})
    tokenizer.add_tokens(list(ADDED))
    return tokenizer


def draw(source: random.Random) -> Case:
    """Draw a case."""
    roles = ["user", "assistant"] * source.randint(1, 3)
    if source.random() < 0.4:
        roles.insert(0, "system")
    messages = tuple({"role": role, "content": _content(source)} for role in roles)
    train = source.choice(["answers", "last_answer", "everything", ["user", "assistant"]])
    return Case(source.choice(KINDS), _template(source), messages, Rendering(train=train))


def _content(source: random.Random) -> str:
    drawn = (source.choice(PIECES) for _ in range(source.randint(1, 5)))
    # Most texts hold no control token: a row of several texts that do would be all there is.
    pieces = [piece for piece in drawn if piece not in SPECIAL or source.random() < 0.3] or ["x"]
    text = source.choice(["", " "]).join(pieces)
    private = "\U000f0000" if source.random() < 0.01 else ""  # what marks control tokens itself
    return text + private if text.strip() else f"{text}x"


def _template(source: random.Random) -> str:
    header, end = source.choice(HEADERS), source.choice(ENDS)
    trim = source.choice(["", " | trim"])
    head = source.choice(["", "{{ '<s>' }}"])
    asks_end = source.choice([end, "\n", ""])
    mark, unmark = source.choice([("", ""), ("{% generation %}", "{% endgeneration %}")])
    thought = source.choice(["", "", "{% if loop.last %}{{ '<think></think>' }}{% endif %}"])
    opening = header.replace("{}", "' + m['role'] + '")
    covers = source.random() < 0.3
    answer = f"{thought}{{{{ (m['content']{trim}) + {end!r} }}}}"
    shown = f"{{{{ '{opening}' }}}}".replace("\n", "\\n")
    turn = f"{mark}{shown}{answer}{unmark}" if covers else f"{shown}{mark}{answer}{unmark}"
    other = f"{shown}{{{{ (m['content']{trim}) + {asks_end!r} }}}}"
    asked = header.format("assistant")
    return (
        f"{head}{{% for m in messages %}}{{% if m['role'] == 'assistant' %}}{turn}"
        f"{{% else %}}{other}{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{{{{ {asked!r} }}}}{{% endif %}}"
    )


def check(case: Case) -> str:
    """Hold a case to what must be true; return why its row was refused, empty where it was not."""
    tokenizer = tokenizer_of(case.kind)
    tokenizer.chat_template = case.template
    dialogue = Dialogue(tokenizer, case.rendering)
    conversation = Conversation(case.messages, rendering=case.rendering)
    (row,) = dialogue.encode([conversation])
    if isinstance(row, DataError):
        return row.message
    ids, labels = row["input_ids"], row["labels"]
    layout = lay_out(dialogue.template, case.messages, (), conversation.trained_turns)
    text = tokenizer.apply_chat_template(list(case.messages), tokenize=False)
    assert without_marks(layout.text) == text, "the text is the template's"
    assert len(ids) == len(labels)
    assert all(label in (IGNORED, token) for token, label in zip(ids, labels, strict=True))
    if case.rendering.train == "everything":
        assert labels == ids
        return ""
    trained = [label != IGNORED for label in labels]
    for turn in layout.turns:
        prompt = _prompt(dialogue, case, turn, text)
        start, stop = len(prompt), _end(trained, len(prompt))
        assert ids[:start] == prompt, "prompt and answer are the row"
        assert trained[start] and (start == 0 or not trained[start - 1])
        assert ids[stop - 1] in dialogue.stop_ids, "every artefact stops where training ended"
        assert not set(ids[start : stop - 1]) & set(dialogue.end_ids), "an answer ends once"
        _check_characters(dialogue, layout.text[len(turn.prompt) : turn.stop], ids[start:stop])
    assert sum(trained) == sum(_end(trained, n) - n for n in _starts(trained))
    assert len(_starts(trained)) == len(layout.turns), "nothing else is trained"
    return ""


def _prompt(dialogue: Dialogue, case: Case, turn: Turn, text: str) -> list[int]:
    """Return what precedes a turn: of an answer what generation is given."""
    message = case.messages[turn.at]
    if message["role"] == "assistant":
        return dialogue.prompt(Question(case.messages[: turn.at], rendering=case.rendering))
    said = text[len(without_marks(turn.prompt)) :].lstrip()
    assert said.startswith(message["content"].strip()), "a turn begins with what it says"
    (ids,) = dialogue.tokenize([turn.prompt])
    assert not isinstance(ids, DataError)
    return ids


def _check_characters(dialogue: Dialogue, wanted: str, ids: list[int]) -> None:
    """Hold the trained tokens to the answer's text, as far as the tokenizer can write it."""
    tokenizer = dialogue.tokenizer
    written = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    if tokenizer.unk_token_id in ids:
        return
    if isinstance(tokenizer.backend_tokenizer.model, _exact_models()):
        assert _flat(written) == _flat(without_marks(wanted)), (written, wanted)


def _exact_models() -> tuple[type, ...]:
    from tokenizers import models

    return (models.BPE, models.Unigram)


def _flat(text: str) -> str:
    """Leave out spaces, which Unigram's decoder drops at the start of what it is given."""
    return "".join(text.split())


def _starts(flags: list[bool]) -> list[int]:
    return [at for at, flag in enumerate(flags) if flag and (at == 0 or not flags[at - 1])]


def _end(flags: list[bool], start: int) -> int:
    return next((at for at in range(start, len(flags)) if not flags[at]), len(flags))


def main(num_cases: int) -> None:
    """Draw and check cases."""
    refused: Counter[str] = Counter()
    for number in range(num_cases):
        case = draw(random.Random(number))
        try:
            reason = check(case)
        except Exception:
            sys.stdout.write(f"case {number}: {case}\n")
            raise
        if reason:
            refused[reason] += 1
    sys.stdout.write(
        f"{num_cases:,} cases held, {sum(refused.values()):,} of them refused by name\n"
    )
    for reason, count in refused.most_common():
        sys.stdout.write(f"  {count:>6}  {reason}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
