"""Train a WordPiece tokenizer as BERT's, for a model that is made anew."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, BEGIN, PART, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIAL_TOKENS = (PAD, UNKNOWN, BEGIN, PART, MASK)
MAX_CHARACTERS = 1000


def train_wordpiece(
    texts: Iterable[str], *, vocab_size: int, max_length: int | None, lowercase: bool = True
) -> PreTrainedTokenizerFast:
    """Train WordPiece on words and punctuation, with BERT's special tokens.

    Args:
        vocab_size: tokens in all, the special ones included.
        max_length: tokens of the model's context; None where it is unbounded.
        lowercase: whether case and accents are dropped, as by `bert-base-uncased`.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    vocabulary = _vocabulary([normalizer.normalize_str(text) for text in texts], vocab_size)
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = TemplateProcessing(
        single=f"{BEGIN} $A {PART}",
        pair=f"{BEGIN} $A {PART} $B:1 {PART}:1",
        special_tokens=[(name, SPECIAL_TOKENS.index(name)) for name in (BEGIN, PART)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        cls_token=BEGIN,
        sep_token=PART,
        mask_token=MASK,
        model_max_length=max_length,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def _vocabulary(texts: Sequence[str], vocab_size: int) -> dict[str, int]:
    """Train the pieces of normalized texts: the same ones whenever it is done.

    tokenizers 0.23 numbers the characters within words as its hash map happens to give them, and
    breaks ties by these numbers. Named as special tokens they have their places beforehand.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    ranked = sorted((-count, one) for one, count in counts.items() if not one.isspace())
    limit = max(1, min(MAX_CHARACTERS, (vocab_size - len(SPECIAL_TOKENS)) // 4))
    kept = sorted(one for _, one in ranked[:limit])
    others = re.compile(f"[^{re.escape(''.join(kept))}]")
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL_TOKENS, *kept, *(f"##{one}" for one in kept)],
        show_progress=False,
    )
    tokenizer.train_from_iterator((others.sub(" ", text) for text in texts), trainer)
    found: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    return found
