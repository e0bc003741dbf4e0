"""Wrong recipes: what a person gets wrong, and the line, key and way out that the gate must name.

Each case edits the one good recipe below, so that it holds one mistake and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

GOOD = """\
name: good
model:
  path: model
  dtype: float32
data:
  source:
    json: {files: {train: rows.jsonl, test: more.jsonl}}
  splits: {train: train, test: test}
  task:
    summarize: {document: document, summary: summary}
adapter:
  lora:
    r: 8
    lora_alpha: 16
    target_modules: all-linear
method:
  sft:
    learning_rate: 2e-4
    max_steps: 10
    max_length: 128
memory: {budget: 6 GiB}
evaluate: {split: test, limit: 4}
"""


@dataclass(frozen=True)
class Case:
    """Hold one mistake."""

    name: str
    old: str
    new: str
    """`old` in the good recipe is replaced by this; an empty `old` replaces the whole text."""
    line: int | None
    key: str
    problem: str
    """Part of the message."""
    suggestion: str = ""
    """Part of the way out."""

    @property
    def text(self) -> str:
        if not self.old:
            return self.new
        assert GOOD.count(self.old) == 1, f"{self.name}: {self.old!r} must stand once"
        return GOOD.replace(self.old, self.new)


def write_files(folder: Path) -> Path:
    """Write what the good recipe names and return the place of the recipe."""
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "config.json").write_text("{}")
    for name in ("rows.jsonl", "more.jsonl"):
        (folder / name).write_text('{"document": "a", "summary": "b"}\n')
    return folder / "recipe.yaml"


FULL = ("  lora:\n    r: 8\n    lora_alpha: 16\n    target_modules: all-linear\n", "")
SFT = "    max_length: 128\n"
LORA = "    target_modules: all-linear\n"


def sft(name: str, line: str, key: str, problem: str, suggestion: str = "") -> Case:
    """Add lines to method.sft, from line 21 on; the last one is at fault."""
    place = 21 + line.count("\n")
    return Case(name, SFT, f"{SFT}    {line}\n", place, f"method.sft.{key}", problem, suggestion)


def lora(name: str, line: str, key: str, problem: str, suggestion: str = "") -> Case:
    """Add one line to adapter.lora, as line 16."""
    return Case(name, LORA, f"{LORA}    {line}\n", 16, f"adapter.lora.{key}", problem, suggestion)


def scratch(  # noqa: PLR0917 - one line a case
    name: str, model: str, line: int, key: str, problem: str, suggestion: str = ""
) -> Case:
    """Train a new model, described on lines 3 and 4, instead of the folder's."""
    text = GOOD.replace("  path: model\n", model).replace(*FULL)
    text = text.replace("adapter:", "adapter: full")
    return Case(name, "", text, line, f"model.{key}", problem, suggestion)


def bnb(name: str, options: str, key: str, problem: str, suggestion: str = "") -> Case:
    """Quantize the model, on line 5."""
    new = f"  dtype: float32\n  quantize: {{bitsandbytes: {{{options}}}}}\n"
    where = "model.quantize.bitsandbytes" + (f".{key}" if key else "")
    return Case(name, "  dtype: float32\n", new, 5, where, problem, suggestion)


SYNTAX = [
    Case("empty file", "", "\n", None, "", "the file is empty", "peftkit recipes"),
    Case("only comments", "", "# soon\n", None, "", "the file is empty", "peftkit recipes"),
    Case("list at the top", "", "- model\n", 1, "", "this is a list", "peftkit explain recipe"),
    Case("text at the top", "", "model\n", 1, "", "this is one value", "peftkit explain recipe"),
    Case("tab", "  dtype: float32", "\tdtype: float32", 4, "", "a tab cannot indent", "spaces"),
    Case("unclosed bracket", "limit: 4}", "limit: 4", 23, "", "expected ',' or '}'"),
    Case("bad indent", "  path: model\n", "  path: model\n   dtype: x\n", 4, "", "mapping values"),
    Case("colon in a value", "path: model", "path: a: b", 3, "", "mapping values", "quote"),
    Case("unknown alias", "r: 8", "r: *rank", 13, "", "undefined alias", "define it above"),
    Case("two documents", "memory:", "---\nmemory:", 21, "", "second document", "one file"),
    Case("python tag", "r: 8", "r: !!python/name:os.system", 13, "adapter.lora.r", "the tag"),
    Case("own tag", "r: 8", "r: !rank 8", 13, "adapter.lora.r", "the tag !rank", "plain values"),
    Case("key twice", "  dtype: float32", "  dtype: float32\n  path: model", 5, "model.path",
         "already stands on line 3", "keep one"),
    Case("section twice", "memory: {budget: 6 GiB}", "memory: {budget: 6 GiB}\nname: again", 22,
         "name", "already stands on line 1", "keep one"),
    Case("key twice on one line", "limit: 4", "limit: 4, limit: 5", 22, "evaluate.limit",
         "already stands on line 22", "keep one"),
    Case("number as a key", "    r: 8", "    16: 8", 13, "adapter.lora.16", "a key is text",
         "write '16' in quotes"),
    Case("true as a key", "    r: 8", "    true: 8", 13, "adapter.lora.true", "a key is text"),
    Case("alias bomb", "name: good", "name: &a [&b [&c [x, x], *c], *b]\nx: &d [" + "*a, " * 60
         + "]\ny: &e [" + "*d, " * 60 + "]\nz: [*e, *e, *e]", 1, "", "too large"),
    Case("alias of itself", "name: good", "name: &a [*a]", 1, "", "too deep"),
]  # fmt: skip

UNKNOWN = [
    Case("section typo", "adapter:\n", "adaptor:\n", 11, "adaptor", "a recipe has no such key",
         "did you mean adapter?"),
    Case("section of another trainer", "method:\n", "training:\n", 16, "training",
         "no such key", "did you mean method?"),
    Case("model key typo", "dtype: float32", "dtyp: float32", 4, "model.dtyp",
         "model has no such key", "did you mean dtype?"),
    Case("model key renamed", "dtype: float32", "torch_dtype: float32", 4, "model.torch_dtype",
         "no such key", "did you mean dtype?"),
    Case("data key typo", "  splits:", "  split:", 8, "data.split", "data has no such key",
         "did you mean splits?"),
    Case("split typo", "splits: {train: train, test", "splits: {train: train, val", 8,
         "data.splits.val", "there is no split", "did you mean validation?"),
    Case("audit typo", "  task:\n", "  audit: {max_trunkated: 0.5}\n  task:\n", 9,
         "data.audit.max_trunkated", "audit has no such key", "did you mean max_truncated?"),
    Case("source option typo", "{files:", "{file:", 7, "data.source.json.file",
         "json has no such key", "did you mean files?"),
    Case("task option typo", "{document: d", "{documnt: d", 10, "data.task.summarize.documnt",
         "summarize has no such key", "did you mean document?"),
    Case("memory key typo", "budget: 6", "bugdet: 6", 21, "memory.bugdet", "no such key",
         "did you mean budget?"),
    Case("evaluate key typo", "limit: 4", "limt: 4", 22, "evaluate.limt",
         "evaluate has no such key", "did you mean limit?"),
    Case("generation key typo", "limit: 4", "generation: {max_tokens: 3}", 22,
         "evaluate.generation.max_tokens", "GenerationConfig (transformers", "max_new_tokens"),
    lora("adapter key typo", "lora_droput: 0.1", "lora_droput", "LoraConfig (peft",
         "did you mean lora_dropout?"),
    lora("adapter key of another name", "rank: 8", "rank", "no such key", "did you mean r?"),
    lora("nested key typo", "loftq_config: {loftq_bit: 4}", "loftq_config.loftq_bit",
         "LoftQConfig (peft", "did you mean loftq_bits?"),
    lora("training key in the adapter", "learning_rate: 1e-4", "learning_rate", "no such key",
         "learning_rate is a key of method.sft"),
    sft("method key typo", "learning_rat: 1e-4", "learning_rat", "SFTConfig (trl",
        "did you mean learning_rate?"),
    sft("method key renamed by trl", "max_seq_length: 512", "max_seq_length", "no such key",
        "did you mean max_length?"),
    sft("method key renamed by transformers", "evaluation_strategy: epoch",
        "evaluation_strategy", "no such key", "did you mean eval_strategy?"),
    sft("method key gone", "warmup_ratio: 0.1", "warmup_ratio", "no such key",
        "write warmup_steps: 0.1: a share works"),
    sft("method key abbreviated", "lr: 1e-4", "lr", "no such key", "did you mean learning_rate?"),
    sft("method key, other trainer", "batch_size: 4", "batch_size", "no such key",
        "did you mean per_device_train_batch_size?"),
    sft("method key with dashes", "weight-decay: 0.1", "weight-decay", "no such key",
        "did you mean weight_decay?"),
    sft("adapter key in the method", "lora_alpha: 32", "lora_alpha", "no such key",
        "lora_alpha is a key of adapter.lora"),
    sft("model key in the method", "attn_implementation: sdpa", "attn_implementation",
        "no such key", "attn_implementation is a key of model"),
    sft("nonsense", "zzzqqq: 1", "zzzqqq", "SFTConfig (trl"),
    bnb("quantization key typo", "load_in_4bit: true, bnb_4bit_quant_typ: nf4",
        "bnb_4bit_quant_typ", "BitsAndBytesConfig (tr", "did you mean bnb_4bit_quant_type?"),
    scratch("model config typo", "  tokenizer: {bpe: {}}\n  config: {model_type: llama,"
            " hiden_size: 64}\n", 4, "config.hiden_size", "LlamaConfig (transformers",
            "did you mean hidden_size?"),
    scratch("tokenizer option typo", "  config: {model_type: llama}\n"
            "  tokenizer: {bpe: {vocab_sise: 64}}\n", 4, "tokenizer.bpe.vocab_sise",
            "no such key", "did you mean vocab_size?"),
]  # fmt: skip

TYPES = [
    lora("number in quotes", 'lora_dropout: "0.1"', "lora_dropout", "expected float, got '0.1'",
         "write 0.1 without quotes"),
    Case("int in quotes", "r: 8", 'r: "8"', 13, "adapter.lora.r", "expected int, got '8'",
         "write 8 without quotes"),
    Case("bool for int", "r: 8", "r: true", 13, "adapter.lora.r", "expected int, got true"),
    Case("float for int", "r: 8", "r: 8.0", 13, "adapter.lora.r", "expected int, got 8.0",
         "write 8"),
    Case("half a rank", "r: 8", "r: 8.5", 13, "adapter.lora.r", "expected int, got 8.5"),
    Case("null for int", "r: 8", "r:", 13, "adapter.lora.r", "expected int, got null",
         "delete the key"),
    Case("list for int", "r: 8", "r: [8]", 13, "adapter.lora.r", "expected int, got [8]",
         "write 8"),
    Case("text for float", "2e-4", "fast", 18, "method.sft.learning_rate",
         "expected float, got 'fast'"),
    Case("infinity", "2e-4", ".inf", 18, "method.sft.learning_rate", "expected float, got inf"),
    Case("not a number", "2e-4", ".nan", 18, "method.sft.learning_rate", "got nan"),
    Case("underscore in a number", "max_steps: 10", "max_steps: 1_000", 19,
         "method.sft.max_steps", "expected int, got '1_000'", "write 1000"),
    Case("hexadecimal", "max_steps: 10", "max_steps: 0x10", 19, "method.sft.max_steps",
         "expected int, got '0x10'", "write 16"),
    Case("leading zero", "max_steps: 10", "max_steps: 010", 19, "method.sft.max_steps",
         "expected int, got '010'", "write 10"),
    Case("minutes", "max_steps: 10", "max_steps: 1:30", 19, "method.sft.max_steps",
         "expected int, got '1:30'"),
    Case("percent for a share", "max_steps: 10", "max_steps: 10\n    weight_decay: 10%", 20,
         "method.sft.weight_decay", "expected float, got '10%'", "write 0.1"),
    sft("yes", "packing: yes", "packing", "expected bool, got 'yes'", "write true"),
    sft("no", "packing: no", "packing", "expected bool, got 'no'", "write false"),
    sft("off", "packing: off", "packing", "expected bool, got 'off'", "write false"),
    sft("true in quotes", "packing: 'true'", "packing", "expected bool", "write true"),
    sft("one for true", "packing: 1", "packing", "expected bool, got 1"),
    sft("unknown optimizer", "optim: adamw", "optim", "expected one of", "adamw_torch?"),
    sft("unknown schedule", "lr_scheduler_type: cosin", "lr_scheduler_type", "expected one of",
        "did you mean cosine?"),
    sft("bool for a strategy", "eval_strategy: true", "eval_strategy", "expected one of"),
    sft("unknown strategy", "save_strategy: stpes", "save_strategy", "expected one of",
        "did you mean steps?"),
    sft("unknown tracker", "report_to: wandbb", "report_to", "got 'wandbb'",
        "did you mean wandb?"),
    sft("tracker in a list", "report_to: [tensorbord]", "report_to.0", "got 'tensorbord'",
        "did you mean tensorboard?"),
    sft("list for a mapping", "lr_scheduler_kwargs: [a]", "lr_scheduler_kwargs", "a mapping"),
    lora("unknown choice", "bias: al", "bias", "expected one of 'none', 'all', 'lora_only'",
         "did you mean all?"),
    lora("iterations that are none", "init_lora_weights: pissa_niter_x", "init_lora_weights",
         "pissa_niter", "did you mean pissa?"),
    lora("number in a list of names", "modules_to_save: [lm_head, 3]", "modules_to_save.1",
         "expected str, got 3", "write '3' in quotes"),
    lora("text for a rank", "rank_pattern: many", "rank_pattern", "expected a mapping"),
    lora("nested type", "loftq_config: {loftq_bits: four}", "loftq_config.loftq_bits",
         "expected int, got 'four'"),
    Case("adapter options as a list", "  lora:\n    r: 8\n    lora_alpha: 16\n"
         "    target_modules: all-linear\n", "  lora: [r, 8]\n", 12, "adapter.lora",
         "expected a mapping of LoraConfig (peft"),
    Case("dtype shorthand", "dtype: float32", "dtype: bf16", 4, "model.dtype",
         "expected one of 'auto', 'float32'", "did you mean bfloat16?"),
    Case("column as a number", "document: document", "document: 3", 10,
         "data.task.summarize.document", "expected str, got 3", "write '3' in quotes"),
    Case("budget without a unit", "6 GiB", "6", 21, "memory.budget", "a size like 6 GiB, got 6",
         "write 6 GiB"),
    Case("budget in words", "6 GiB", "plenty", 21, "memory.budget", "a size like 6 GiB",
         "units: GiB"),
    Case("limit as text", "limit: 4", "limit: all", 22, "evaluate.limit", "expected int or null"),
    Case("share instead of percent", "test: test}\n", "validation: 0.05, test: test}\n", 8,
         "data.splits.validation", "got 0.05", "write 5%"),
    Case("split as a list", "test: test}\n", "test: [test]}\n", 8, "data.splits.test",
         "expected a split, got ['test']"),
    Case("evaluate as text", "evaluate: {split: test, limit: 4}", "evaluate: test", 22,
         "evaluate", "expected a mapping"),
    Case("name with a slash", "name: good", "name: runs/good", 1, "name", "names the folder",
         "letters"),
    Case("name as a number", "name: good", "name: 3", 1, "name", "names the folder"),
    Case("model section as text", "model:\n  path: model\n  dtype: float32\n", "model: model\n",
         2, "model", "expected a mapping of model's keys"),
    bnb("quantization value", "load_in_4bit: true, bnb_4bit_quant_type: nf5",
        "bnb_4bit_quant_type", "expected one of 'fp4', 'nf4'", "did you mean nf4?"),
    bnb("quantization flag as text", "load_in_4bit: yes", "load_in_4bit", "expected bool",
        "write true"),
]  # fmt: skip

BOUNDS = [
    Case("rank zero", "r: 8", "r: 0", 13, "adapter.lora.r", "must be at least 1, got 0"),
    Case("alpha zero", "lora_alpha: 16", "lora_alpha: 0", 14, "adapter.lora.lora_alpha",
         "must be above 0"),
    lora("dropout of everything", "lora_dropout: 1.0", "lora_dropout",
         "at least 0 and below 1, got 1.0"),
    Case("learning rate zero", "2e-4", "0", 18, "method.sft.learning_rate", "must be above 0"),
    Case("negative learning rate", "2e-4", "-2e-4", 18, "method.sft.learning_rate", "above 0"),
    Case("no steps", "max_steps: 10", "max_steps: 0", 19, "method.sft.max_steps",
         "at least 1, or -1, got 0"),
    Case("no length", "max_length: 128", "max_length: 0", 20, "method.sft.max_length",
         "at least 1"),
    sft("no accumulation", "gradient_accumulation_steps: 0", "gradient_accumulation_steps",
        "must be at least 1, got 0"),
    sft("no batch", "per_device_train_batch_size: 0", "per_device_train_batch_size", "at least 1"),
    sft("seed too large", "seed: 4294967296", "seed", "at most"),
    Case("no rows", "limit: 4", "limit: 0", 22, "evaluate.limit", "at least 1"),
    Case("threshold above all", "  task:\n", "  audit: {max_dropped: 2}\n  task:\n", 9,
         "data.audit.max_dropped", "at most 1, got 2"),
    Case("top_p of nothing", "limit: 4", "generation: {do_sample: true, top_p: 0}", 22,
         "evaluate.generation.top_p", "above 0 and at most 1"),
]  # fmt: skip

PLUGINS = [
    Case("unknown source", "    json: {", "    jsn: {", 7, "data.source.jsn",
         "there is no source 'jsn'", "did you mean json?"),
    Case("unknown task", "    summarize:", "    sumarize:", 10, "data.task.sumarize",
         "there is no task", "did you mean summarize?"),
    Case("unknown adapter", "  lora:\n", "  lroa:\n", 12, "adapter.lroa", "there is no adapter",
         "did you mean lora?"),
    Case("adapter in capitals", "  lora:\n", "  LORA:\n", 12, "adapter.LORA",
         "there is no adapter", "did you mean lora?"),
    Case("unknown method", "  sft:\n", "  stf:\n", 17, "method.stf", "there is no method",
         "did you mean sft?"),
    Case("method that nothing resembles", "  sft:\n", "  zzz:\n", 17, "method.zzz",
         "there is no method", "the methods are"),
    Case("unknown quantization", "  dtype: float32\n", "  dtype: float32\n  quantize:"
         " {bitsandbyte: {load_in_4bit: true}}\n", 5, "model.quantize.bitsandbyte",
         "there is no quantizer", "did you mean bitsandbytes?"),
    scratch("unknown tokenizer", "  config: {model_type: llama}\n  tokenizer: {unigram: {}}\n",
            4, "tokenizer.unigram", "there is no tokenizer", "use bpe, wordpiece"),
    scratch("unknown model type", "  config: {model_type: lama}\n  tokenizer: {bpe: {}}\n", 3,
            "config.model_type", "a transformers model type", "did you mean llama?"),
    scratch("no model type", "  config: {hidden_size: 8}\n  tokenizer: {bpe: {}}\n", 3,
            "config.model_type", "it is missing", "model_type: llama"),
    Case("unknown embedded model", "path: model", "path: embedded:docstring-ml", 3, "model.path",
         "no embedded model", "did you mean docstring-lm?"),
    Case("two adapters", "  lora:\n", "  ia3: {}\n  lora:\n", 11, "adapter",
         "one key, the adapter's name, got ia3, lora", "keep one"),
    Case("no method at all", "  sft:\n    learning_rate: 2e-4\n    max_steps: 10\n"
         "    max_length: 128\n", "  {}\n", 16, "method", "one key, the method's name"),
    Case("bare task", "task:\n    summarize: {document: document, summary: summary}",
         "task: summarize", 9, "data.task", "one-key mapping, got 'summarize'",
         "write {summarize: {}}"),
    Case("embedded misspelt", "path: model", "path: embeded:docstring-lm", 3,
         "model.path", "no place of models", "did you mean embedded:docstring-lm?"),
    Case("list of sources", "source:\n    json: {files: {train: rows.jsonl, test: more.jsonl}}",
         "source: [json]", 6, "data.source.0", "one key, the source's name"),
    Case("bare adapter", "  lora:\n    r: 8\n    lora_alpha: 16\n    target_modules: all-linear\n",
         "  lora\n", 11, "adapter", "the only bare word is full, got 'lora'", "{lora: {}}"),
]  # fmt: skip

OWNED = [
    sft("owned: output_dir", "output_dir: out", "output_dir", "peftkit sets this", "--out DIR"),
    sft("owned: run_name", "run_name: x", "run_name", "peftkit sets this", "name"),
    sft("owned: resume", "resume_from_checkpoint: x", "resume_from_checkpoint",
        "peftkit sets this", "resumes by itself"),
    sft("owned: model_init_kwargs", "model_init_kwargs: {dtype: float32}", "model_init_kwargs",
        "peftkit sets this", "model"),
    sft("owned: push_to_hub", "push_to_hub: true", "push_to_hub", "peftkit sets this",
        "peftkit push RUN OWNER/NAME"),
    sft("owned: remove_unused_columns", "remove_unused_columns: false", "remove_unused_columns",
        "peftkit sets this"),
    sft("owned: dataset_kwargs", "dataset_kwargs: {skip_prepare_dataset: true}",
        "dataset_kwargs", "peftkit sets this"),
    sft("owned: masks", "assistant_only_loss: true", "assistant_only_loss", "peftkit sets this"),
    sft("owned: text field", "dataset_text_field: text", "dataset_text_field",
        "peftkit sets this", "data.task"),
    lora("owned: task_type", "task_type: CAUSAL_LM", "task_type", "peftkit sets this", "method"),
    lora("owned: peft_type", "peft_type: LORA", "peft_type", "peftkit sets this", "name"),
    lora("owned: base model", "base_model_name_or_path: x", "base_model_name_or_path",
         "peftkit sets this", "model.path"),
    lora("owned: inference_mode", "inference_mode: true", "inference_mode", "peftkit sets this"),
    lora("owned: revision", "revision: main", "revision", "peftkit sets this", "model.revision"),
    scratch("owned: vocabulary", "  config: {model_type: llama, vocab_size: 9}\n"
            "  tokenizer: {bpe: {}}\n", 3, "config.vocab_size", "peftkit sets this",
            "model.tokenizer"),
]  # fmt: skip

MISSING = [
    Case("no model section", "model:\n  path: model\n  dtype: float32\n", "", None, "model",
         "requires this section"),
    Case("no base model", "  path: model\n", "", 2, "model", "names no base model", "embedded:"),
    Case("no source", "  source:\n    json: {files: {train: rows.jsonl, test: more.jsonl}}\n", "",
         5, "data.source", "requires this key", "one of"),
    Case("required option", "json: {files: {train: rows.jsonl, test: more.jsonl}}", "json: {}", 7,
         "data.source.json.files", "requires this key", "write files"),
    Case("no training split", "splits: {train: train, test", "splits: {test", 8, "data.splits",
         "the split train is missing", "train: train"),
    Case("model folder", "path: model", "path: ./modle", 3, "model.path",
         "there is no model folder './modle'", "did you mean model?"),
    Case("neither folder nor id", "path: model", "path: my model", 3, "model.path",
         "neither a Hub id nor a folder", "org/name"),
    Case("data file", "train: rows.jsonl", "train: row.jsonl", 7, "data.source.json.files.train",
         "there is no file or folder 'row.jsonl'", "did you mean rows.jsonl?"),
    Case("data pattern", "train: rows.jsonl", "train: 'part-*.jsonl'", 7,
         "data.source.json.files.train", "no file matches 'part-*.jsonl'"),
    Case("chat template", "  dtype: float32\n", "  dtype: float32\n  chat_template: chat.jinja\n",
         5, "model.chat_template", "there is no file 'chat.jinja'", "recipe's folder"),
    Case("name of a template", "  dtype: float32\n", "  dtype: float32\n  chat_template: chatlm\n",
         5, "model.chat_template", "there is no chat template 'chatlm'", "did you mean chatml?"),
    Case("adapter to continue", "  lora:\n    r: 8\n    lora_alpha: 16\n"
         "    target_modules: all-linear\n", "  from: runs/old\n", 12, "adapter.from",
         "there is no adapter folder or run 'runs/old'"),
]  # fmt: skip

CONTRADICTIONS = [
    Case("quantized and full", "  dtype: float32\ndata:", "  quantize: {bitsandbytes:"
         " {load_in_4bit: true}}\ndata:", None, "", ""),
    bnb("4 and 8 bit", "load_in_4bit: true, load_in_8bit: true", "load_in_8bit",
        "contradicts load_in_4bit", "keep one"),
    bnb("no bits at all", "llm_int8_threshold: 5.0", "", "quantizes nothing", "load_in_4bit"),
    bnb("4-bit key of an 8-bit base", "load_in_8bit: true, bnb_4bit_quant_type: nf4",
        "bnb_4bit_quant_type", "with load_in_4bit only", "load_in_4bit: true"),
    bnb("8-bit key of a 4-bit base", "load_in_4bit: true, llm_int8_threshold: 5.0",
        "llm_int8_threshold", "with load_in_8bit only", "delete it"),
    scratch("path and config", "  path: model\n  config: {model_type: llama}\n", 4, "config",
            "contradicts model.path", "keep path"),
    scratch("new model without a tokenizer", "  config: {model_type: llama}\n", 3, "config",
            "a new model needs a tokenizer", "bpe"),
    scratch("heads that do not divide", "  config: {model_type: llama, hidden_size: 100,"
            " num_attention_heads: 3, num_key_value_heads: 3}\n  tokenizer: {bpe: {}}\n", 3,
            "config.num_attention_heads", "does not divide hidden_size 100"),
    Case("tokenizer of an old model", "  dtype: float32\n", "  tokenizer: {bpe: {}}\n", 4,
         "model.tokenizer", "for a new model only", "delete it"),
    Case("revision of a folder", "  dtype: float32\n", "  revision: main\n", 4, "model.revision",
         "belongs to a model of the Hub", "delete it"),
    Case("evaluation of no split", "split: test", "split: tset", 22, "evaluate.split",
         "there is no split 'tset'", "did you mean test?"),
    Case("testing on the training rows", "test: test}\n", "test: train}\n", 8,
         "data.splits.test", "is train's own split", "5%"),
    Case("nothing left to train on", "test: test}\n", "validation: 60%, test: 40%}\n", 8,
         "data.splits", "leave nothing to train on"),
    Case("percentage of the training split", "{train: train, test", "{train: 90%, test", 8,
         "data.splits.train", "what remains", "train: train"),
    sft("two precisions", "bf16: true\n    fp16: true", "fp16", "contradicts bf16", "keep one"),
    Case("steps and epochs", "2e-4", "2e-4\n    num_train_epochs: 3", 20, "method.sft.max_steps",
         "win over num_train_epochs 3", "keep one"),
    sft("warm-up longer than the run", "warmup_steps: 50", "warmup_steps", "never reached"),
    sft("warm-up ignored", "lr_scheduler_type: constant\n    warmup_steps: 2", "warmup_steps",
        "is ignored by lr_scheduler_type constant", "constant_with_warmup"),
    sft("no validation split", "eval_strategy: epoch", "eval_strategy",
        "needs a validation split", "validation: 5%"),
    sft("best of nothing", "load_best_model_at_end: true", "load_best_model_at_end",
        "needs a validation split"),
    sft("interval without strategy", "eval_steps: 5", "eval_steps", "ignored without",
        "eval_strategy: steps"),
    sft("interval of epochs", "save_strategy: epoch\n    save_steps: 5", "save_steps",
        "is ignored when save_strategy is epoch", "save_strategy: steps"),
    sft("plateau without evaluation", "lr_scheduler_type: reduce_lr_on_plateau",
        "lr_scheduler_type", "needs eval_strategy", "eval_strategy: epoch"),
    sft("prefetch without workers", "dataloader_prefetch_factor: 2",
        "dataloader_prefetch_factor", "needs workers", "dataloader_num_workers"),
    sft("checkpointing options of none", "gradient_checkpointing: false\n"
        "    gradient_checkpointing_kwargs: {use_reentrant: false}",
        "gradient_checkpointing_kwargs", "is ignored when gradient_checkpointing is false"),
    lora("options of another init", "eva_config: {rho: 1.5}", "eva_config",
         "is ignored unless init_lora_weights is eva", "delete it"),
    lora("start that cannot be made again", "init_lora_weights: pissa_niter_4",
         "init_lora_weights", "starts at random", "write pissa"),
    lora("start made from data", "init_lora_weights: eva", "init_lora_weights",
         "which no run collects", "pissa or olora"),
    lora("loftq without bits", "init_lora_weights: loftq", "init_lora_weights",
         "loftq needs loftq_config"),
    lora("layers of a pattern", "layers_to_transform: [0]", "layers_to_transform",
         "needs target_modules as a list"),
    Case("another tool's word for all", "target_modules: all-linear", "target_modules: all", 15,
         "adapter.lora.target_modules", "is read as a regular expression", "all-linear"),
    sft("auto for a switch", "bf16: auto", "bf16", "expected bool", "delete the key"),
    Case("attention of another stack", "  dtype: float32\n", "  attn_implementation: xformers\n", 4,
         "model.attn_implementation", "transformers has no 'xformers'", "write sdpa"),
    Case("codes from the Hub", "limit: 4", "generation: {penalty_alpha: 0.6}", 22,
         "evaluate.generation.penalty_alpha", "peftkit sets this key", "takes the code for it"),
    Case("watchdog", "memory: {budget: 6 GiB}", "stop_above: {loss: 5, steps: 0}", 21,
         "stop_above.steps", "must be at least 1"),
    Case("epochs of steps", "memory: {budget: 6 GiB}", "per_epoch: {saves: 2}", 21, "per_epoch",
         "max_steps is stated", "num_train_epochs"),
    Case("system message", "task:\n", "dialogue: {system: 'You are {name'}\n  task:\n", 9,
         "data.dialogue.system", "a lone {", "{{"),
    Case("temperature of greedy decoding", "limit: 4", "generation: {temperature: 0.7}", 22,
         "evaluate.generation.temperature", "ignored by greedy", "do_sample: true"),
    Case("fewest above most", "limit: 4", "generation: {min_new_tokens: 9, max_new_tokens: 4}",
         22, "evaluate.generation.min_new_tokens", "is more than max_new_tokens 4"),
    Case("adapter on a new model", "  path: model\n  dtype: float32\n", "  config: {model_type:"
         " llama}\n  tokenizer: {bpe: {}}\n", 11, "adapter", "nothing to adapt", "adapter: full"),
]  # fmt: skip

CONTRADICTIONS[0] = Case(
    "quantized and full",
    "",
    GOOD.replace(*FULL)
    .replace("adapter:\n", "adapter: full\n")
    .replace("dtype: float32", "quantize: {bitsandbytes: {load_in_4bit: true}}"),
    4,
    "model.quantize",
    "contradicts adapter: full",
    "delete quantize",
)

CASES = [*SYNTAX, *UNKNOWN, *TYPES, *BOUNDS, *PLUGINS, *OWNED, *MISSING, *CONTRADICTIONS]
