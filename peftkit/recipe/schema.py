"""What a recipe says, as frozen dataclasses: the nouns that every verb takes.

Each field's docstring is what `peftkit explain KEY` prints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from peftkit.plugins.rendering import Rendering
from peftkit.plugins.speed import Speed


@dataclass(frozen=True)
class Choice:
    """Name a plugin and its options: the one-key mapping `{lora: {r: 16}}`."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BpeTokenizer:
    """Train a byte-level BPE tokenizer on the training split, for a model from scratch."""

    vocab_size: int = 8192
    """Tokens in all, the special ones and the 256 bytes included."""


@dataclass(frozen=True)
class WordPieceTokenizer:
    """Train a WordPiece tokenizer, as BERT's, on the training split."""

    vocab_size: int = 8192
    """Tokens in all, the special ones included."""
    lowercase: bool = True
    """Drop case and accents, as `bert-base-uncased` does."""


@dataclass(frozen=True)
class TokenizerAt:
    """Take the tokenizer of another place than the model's."""

    path: str = ""
    """A Hub id, a folder, or `embedded:NAME`."""
    revision: str | None = None
    """Branch, tag or commit of a Hub id."""
    subfolder: str | None = None
    """Folder inside the Hub repository."""


@dataclass(frozen=True)
class ModelSection:
    """Say which base model is loaded and how: what `AutoModel*.from_pretrained` takes."""

    path: str | None = None
    """A Hub id, a folder, or `embedded:NAME` for a model that ships with peftkit."""
    config: Mapping[str, Any] | None = None
    """Instead of `path`: a new model with random weights: `model_type` and that config's keys."""
    tokenizer: Choice | None = None
    """With `config`, the tokenizer that is trained for a new model: `{bpe: {vocab_size: 8192}}`;
    with `path`, one of another place: `{path: ...}`."""
    add_tokens: list[str] = field(default_factory=list)
    """Tokens that the tokenizer gets beside its own. Their rows of embedding and head begin as the
    mean of all others and are trained."""
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    """Which tokens are special, in transformers' words: `{eos_token: ..., pad_token: ...}`; one
    that the tokenizer does not have is added."""
    dtype: str = "auto"
    """Weights' dtype: `float32`, `bfloat16`, `float16`, or `auto` for the checkpoint's own."""
    quantize: Choice | None = None
    """Hold the base in fewer bits, by a quantizer: `{bitsandbytes: {load_in_4bit: true}}`."""
    revision: str | None = None
    """Branch, tag or commit of a Hub id; the commit it resolves to is recorded either way."""
    subfolder: str | None = None
    """Folder inside the Hub repository."""
    attn_implementation: str | None = None
    """`eager`, `sdpa`, `flash_attention_2` ...; transformers' own choice when absent."""
    device_map: str | None = None
    """`auto` spreads the base over devices; absent, the whole base goes to one device."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model; off unless the recipe says so."""
    chat_template: str | None = None
    """What replaces the tokenizer's chat template: a Jinja file beside the recipe, or a name:
    `chatml`, `llama3`, `mistral`, `gemma`, `phi`, `zephyr`, `vicuna`, `alpaca`, `plain`, or one
    that trl ships for training (`qwen3`, `gemma3`, `gptoss` ...)."""

    def saved_in(self, folder: Path) -> ModelSection:
        """Return what loads a whole model that was trained from this one, and lies in a folder."""
        return replace(
            self,
            path=str(folder),
            config=None,
            tokenizer=None,
            add_tokens=[],
            special_tokens={},
            revision=None,
            subfolder=None,
        )

    @property
    def changes_tokens(self) -> bool:
        """Tell whether the tokenizer may have tokens that the base was not trained with."""
        return bool(self.add_tokens or self.special_tokens or self.other_tokenizer)

    @property
    def other_tokenizer(self) -> Mapping[str, Any] | None:
        """Return where a tokenizer of another place lies; None where it is the base's own."""
        is_elsewhere = self.path is not None and self.tokenizer is not None
        return self.tokenizer.options if is_elsewhere and self.tokenizer else None


@dataclass(frozen=True)
class AuditSection:
    """Set how much loss of data is an error; shares are fractions of a split's rows."""

    max_dropped: float = 0.05
    """Largest share of rows that may be unusable (null, empty, refused by the task)."""
    max_truncated: float = 0.2
    """Largest share of rows that may be cut at `max_length`."""
    max_masked: float = 0.01
    """Largest share of rows in which no token is trained after truncation."""
    max_unread: float = 0.01
    """Largest share of rows whose answer a vocabulary cannot write: JSON in T5's, say."""
    max_leaked: float = 1.0
    """Largest share of a held-out split's rows whose prompt stands in `train`; always reported."""


@dataclass(frozen=True)
class RowsSection:
    """Say what becomes of rows that are too long or empty, whatever trains on them."""

    too_long: Literal["truncate", "drop", "cut"] = "truncate"
    """`truncate` leaves it to the method, which cuts a row's end, an error beyond
    `data.audit.max_truncated`; `drop` leaves such rows out; `cut` shortens their document, so that
    instruction, answer and end stay whole. Both are counted."""
    document: str | None = None
    """Column that `cut` shortens; what the task itself calls a document when absent."""
    keep: Literal["start", "end"] = "start"
    """Which part of the document `cut` keeps."""
    empty: Literal["refuse", "drop"] = "refuse"
    """Rows without a text, a label or an answer: `refuse` counts them as unusable, an error beyond
    `data.audit.max_dropped`; `drop` leaves out however many there are."""
    max_mib: float = 4.0
    """Largest text of a row, in MiB: a million tokens. To encode a text takes 160 times its size,
    so that a larger one, which is mostly a mistake in the file, counts as unusable."""


@dataclass(frozen=True)
class Part:
    """Name one of the sources whose rows a recipe mixes, and what they mean."""

    key: str
    """Where it stands: `data.source`, or `data.source.1` in a list."""
    source: Choice
    task: Choice
    task_key: str
    """Where its task stands: `data.task`, or its own, `data.source.1.task`."""
    splits: Mapping[str, str]
    weight: float = 1.0
    """How often an epoch sees each of its training rows; 0.5 is every other, by a hash."""
    label: str = ""
    """Its name in the audit: the source's, numbered where it stands in the list twice."""


@dataclass(frozen=True)
class DataSection:
    """Say where rows come from, how they are split and what they mean."""

    source: Choice | tuple[Part, ...] = field(default_factory=lambda: Choice(""))
    """Where rows come from: one plugin of the group `sources`, or a list of several to mix:
    `[{json: {...}, weight: 2}, {csv: {...}, task: ..., splits: ...}]`. `weight` is how often an
    epoch sees each of its rows; a source without a `task` or `splits` of its own has `data`'s."""
    splits: Mapping[str, str] = field(default_factory=lambda: {"train": "train"})
    """Our split -> a native split, a slice of one (`train[:1000]`), or what is cut from `train` by
    a hash of the row: a share (`5%`) or a number of rows (`500`). Where it is absent, the splits
    that `files` names."""
    task: Choice = field(default_factory=lambda: Choice(""))
    """What a row means: one plugin of the group `tasks`."""
    audit: AuditSection = field(default_factory=AuditSection)
    """Thresholds whose breach stops the run before any weight is read."""
    rows: RowsSection = field(default_factory=RowsSection)
    """What becomes of rows that are too long or empty."""
    dialogue: Rendering = field(default_factory=Rendering)
    """How conversations become text, and which turns of them are trained."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """Return each source with its task and splits, also where there is one alone."""
        match self.source:
            case tuple() as parts:
                return parts
            case one:
                task = self.task
                return (Part("data.source", one, task, "data.task", self.splits, label=one.name),)

    @property
    def is_list(self) -> bool:
        """Tell whether the recipe lists its sources."""
        return self.parts[:1] == () or self.parts[0].key != "data.source"

    @property
    def all_splits(self) -> dict[str, str]:
        """Return our splits that any source has, each with the first value that is said of it."""
        found: dict[str, str] = {}
        for part in self.parts:
            found = {**part.splits, **found}
        return {name: found[name] for name in ("train", "validation", "test") if name in found}

    def main_part(self, split: str | None) -> Part:
        """Return the first source that has rows of a split; the first one where none has."""
        return next((part for part in self.parts if split in part.splits), self.parts[0])


@dataclass(frozen=True)
class FullSection:
    """Train a base's own parameters."""

    train: list[str] = field(default_factory=list)
    """Regular expressions that are looked for in parameters' names, of which those that hold one
    are trained, and no other; a layer may be counted from the end: `layers.-1.`, or
    `layers.-4:` for the last four. All parameters when empty."""


@dataclass(frozen=True)
class AdapterSection:
    """Say what is trained: a PEFT method, an existing adapter, or everything."""

    choice: Choice | None
    """A PEFT method with its native keys; None for `adapter: full` and for `from`."""
    continue_from: str | None = None
    """`from: PATH`: an adapter folder, or a run, whose training goes on."""
    train: tuple[str, ...] = ()
    """Which parameters `full` trains; all of them when empty."""

    @property
    def is_full(self) -> bool:
        """Tell whether every parameter of the base is trained."""
        return self.choice is None and self.continue_from is None


@dataclass(frozen=True)
class MemorySection:
    """Bound memory."""

    budget_bytes: int | None = None
    """`budget: 6 GiB`: the run refuses to start above this (resident memory on a CPU)."""


@dataclass(frozen=True)
class EarlyStoppingSection:
    """Stop once the validation split no longer improves, and keep the best checkpoint."""

    patience: int = 3
    """Evaluations in a row without an improvement after which training stops."""
    threshold: float = 0.0
    """Smallest change of the metric that counts as an improvement."""


@dataclass(frozen=True)
class PerEpochSection:
    """Evaluate and save so often an epoch, whatever its number of steps."""

    evaluations: int | None = None
    """Evaluations of the validation split; as `eval_strategy` says when absent."""
    saves: int | None = None
    """Checkpoints; as `save_strategy` says when absent."""


@dataclass(frozen=True)
class StopAboveSection:
    """Give a training up whose loss stays too high, with exit code 6; the last checkpoint stays."""

    loss: float = 5.0
    """Training loss above which a step counts."""
    steps: int = 20
    """So many steps in a row above it end the training."""


@dataclass(frozen=True)
class EvaluateSection:
    """Say what is scored after training, base beside tuned."""

    split: str = "test"
    """Which split is scored."""
    limit: int | None = None
    """Score only the first rows of the split."""
    batch_size: int = 8
    """Prompts generated at once."""
    generation: Mapping[str, Any] = field(default_factory=dict)
    """Keys of `transformers.GenerationConfig`; greedy, and `max_new_tokens` 64, unless stated."""


@dataclass(frozen=True)
class Recipe:
    """Hold a checked recipe, with where each key stood."""

    name: str
    model: ModelSection
    data: DataSection
    adapter: AdapterSection
    method: Choice
    memory: MemorySection
    evaluate: EvaluateSection | None
    file: Path
    text: str
    """The user's file, verbatim."""
    lines: Mapping[str, int]
    """Dotted key -> 1-based line; a key set on the command line is absent."""
    overrides: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    """What the file says and an override leaves out, as a line each with its reason."""
    early_stopping: EarlyStoppingSection | None = None
    stop_above: StopAboveSection | None = None
    per_epoch: PerEpochSection | None = None
    speed: Speed = field(default_factory=Speed)

    @property
    def scoring(self) -> EvaluateSection:
        """Say how answers are made and scored, also where training is not followed by scoring."""
        return self.evaluate or EvaluateSection()

    def place(self, *keys: str, say: str = "") -> str:
        """Return `file:line key` of the first of these keys that stands in the recipe.

        Args:
            say: the key to print, whichever one's line it is.
        """
        set_here = {override.partition("=")[0] for override in self.overrides}
        for key in keys:
            if key in set_here:
                return f"{self.file} {say or key} (override)"
            if key in self.lines:
                return f"{self.file}:{self.lines[key]} {say or key}"
        return f"{self.file} {keys[0]}" if keys else str(self.file)
