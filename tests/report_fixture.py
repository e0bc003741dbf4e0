"""Hand-made run directories that the tests of the report read."""

from __future__ import annotations

import json
import math
from pathlib import Path

import yaml

from peftkit.rundir.paths import RunDir

HOSTILE = '</script><script>fetch("https://evil.invalid")</script><img src=x onerror=alert(1)>'

DOCUMENTS = (
    "Return the sorted list of keys whose values satisfy a predicate. Keys that are missing "
    "in the mapping are skipped without a warning, and the order is that of first appearance.",
    "Open a connection to the server and keep it open until close is called. A timeout of None "
    "waits for ever; a timeout of zero returns at once and raises BlockingIOError.",
    "Compute the weighted mean over an axis. Weights must be broadcastable to the shape of the "
    "array; a sum of weights equal to zero raises ZeroDivisionError.",
)


def _prompt(index: int) -> list[dict[str, str]]:
    document = DOCUMENTS[index % 3]
    return [{"role": "user", "content": f"Summarise in one sentence.\n\n{document} ({index})"}]


def _metrics(num_steps: int) -> list[dict]:
    lines: list[dict] = []
    for step in range(1, num_steps + 1):
        noise = 0.12 * math.sin(step * 2.3) + 0.06 * math.sin(step * 7.1)
        loss = 1.15 + 2.4 * math.exp(-step / (num_steps / 7)) + noise
        lines.append({"step": step, "epoch": step / num_steps, "loss": loss, "learning_rate": 2e-4})
        if step % max(1, num_steps // 6) == 0:
            lines.append({"step": step, "eval_loss": 1.3 + 2.0 * math.exp(-step / (num_steps / 6))})
    return lines


def _mask(index: int) -> dict:
    words = (f"<|user|>\nSummarise in one sentence.\n\n{DOCUMENTS[index]}" * 3).split(" ")
    answer = ["Return", " the", " keys", " that", " match", ".", "<|endoftext|>"]
    tokens = [words[0], *(f" {w}" for w in words[1:]), "<|endoftext|>", "\n", "<|assistant|>\n"]
    return {"tokens": tokens + answer, "trained": [False] * len(tokens) + [True] * len(answer)}


def _audit(num_rows: int) -> dict:
    return {
        "num_rows": num_rows, "num_used": num_rows - 3, "dropped": {"empty summary": 2, "null": 1},
        "num_truncated": num_rows // 50, "num_fully_masked": 0, "num_tokens": num_rows * 187,
        "num_trained_tokens": num_rows * 21,
        "length_percentiles": {"p50": 161, "p90": 344, "p99": 498, "max": 512},
    }  # fmt: skip


def _json(file: Path, content: dict) -> None:
    file.write_text(json.dumps({"schema_version": 1, **content}), encoding="utf-8")


def _jsonl(file: Path, records: list[dict]) -> None:
    file.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")


def make_stopped_run(path: Path, *, num_steps: int = 120) -> RunDir:
    """Write what a run that was stopped halfway leaves behind."""
    path.mkdir(parents=True)
    run_dir = RunDir(path)
    run_dir.recipe.write_text("name: summarize-lora\nmodel:\n  path: embedded:docstring-lm\n")
    decisions = [
        {"key": "method.sft.bf16", "value": False, "reason": "model.dtype is float32"},
        {"key": "method.sft.use_cpu", "value": True, "reason": "no accelerator was found here"},
        {"key": "method.sft.dataloader_num_workers", "value": 0,
         "reason": "rows are encoded before training, so workers would only copy them"},
    ]  # fmt: skip
    resolved = {
        "name": "summarize-lora",
        "model": {"path": "embedded:docstring-lm", "dtype": "float32"},
        "adapter": {"lora": {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}},
        "method": {"sft": {"learning_rate": 2e-4, "num_train_epochs": 1}},
        "decisions": decisions,
    }
    run_dir.resolved.write_text(yaml.safe_dump(resolved))
    _json(run_dir.status, {"identity": "0f", "state": "stopped", "exit_code": 75,
                           "step": num_steps, "total_steps": 2 * num_steps})  # fmt: skip
    _json(run_dir.versions, {
        "python": "3.11.7", "platform": "Linux x86_64",
        "packages": {"torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.2"},
        "device": "cpu (2 cores)", "model": {"path": "embedded:docstring-lm", "revision": None},
    })  # fmt: skip
    _json(run_dir.data, {
        "fingerprint": "9f2c" * 16,
        "splits": {"train": _audit(4200), "validation": _audit(210), "test": _audit(400)},
        "mask_samples": {"train": [_mask(i) for i in range(3)]},
    })  # fmt: skip
    _json(run_dir.plan, {
        "peak_bytes": 1_179_648_000, "peak_phase": "backward",
        "terms": [
            {"name": "base", "num_bytes": 29_000_000, "phase": "load", "formula": "29,000,000"},
            {"name": "activations", "num_bytes": 890_648_000, "phase": "forward",
             "formula": "99,664·B·T + 512·T"},
            {"name": "runtime", "num_bytes": 260_000_000, "phase": "load",
             "formula": "resident in this process before the model is read"},
        ],
        "micro_batch": 16, "length": 367, "accumulation": 2, "unknown": [],
        "limits": [{"name": "memory.budget", "num_bytes": 3 << 30}],
        "speeds": [{"basis": "predicted", "device": "cpu (2 cores)", "seconds_per_step": 0.31,
                    "tokens_per_second": 10_557.3, "bound": "memory traffic",
                    "num_steps": 2 * num_steps, "run_seconds": 0.62 * num_steps}],
    })  # fmt: skip
    _jsonl(run_dir.metrics, _metrics(num_steps))
    return run_dir


def make_run(path: Path, *, num_steps: int = 240, hostile: bool = False) -> RunDir:
    """Write what a finished run leaves behind."""
    run_dir = make_stopped_run(path, num_steps=num_steps)
    _json(run_dir.status, {"identity": "0f", "state": "finished", "exit_code": 0,
                           "step": num_steps, "total_steps": num_steps})  # fmt: skip
    _json(run_dir.measured, {
        "train_seconds": 83.4, "num_steps": num_steps, "num_tokens": 785_400,
        "tokens_per_second": 9417.3, "peak_bytes": 1_310_000_000, "peak_kind": "resident",
        "final_loss": 1.17, "device": "cpu (2 cores)", "num_trainable": 425_984,
        "num_parameters": 7_250_000,
    })  # fmt: skip
    _json(run_dir.scores, {
        "split": "test", "num_rows": 200, "headline": "rougeL",
        "base": {"rouge1": 0.121, "rouge2": 0.021, "rougeL": 0.0934, "rougeLsum": 0.1011,
                 "bleu": 0.84, "chrf": 14.2, "perplexity": 61.7},
        "tuned": {"rouge1": 0.3402, "rouge2": 0.161, "rougeL": 0.3121, "rougeLsum": 0.3124,
                  "bleu": 11.2, "chrf": 31.8, "perplexity": 9.84},
        "baselines": {"first_sentence": {"rouge1": 0.233, "rouge2": 0.084, "rougeL": 0.1934,
                                         "rougeLsum": 0.2011, "bleu": 5.1, "chrf": 27.4}},
        "intervals": {"metric": "rougeL", "level": 0.95, "base": [0.084, 0.102],
                      "tuned": [0.287, 0.338], "gain": [0.193, 0.244]},
        "notes": ["The gain in ROUGE-L is 0.193 to 0.244 (95 % paired bootstrap over rows)."],
    })  # fmt: skip
    samples = [
        {
            "prompt": _prompt(i), "reference": "Return the keys that satisfy a predicate.",
            "base": "Return the document.\n\nParameters\n----------\nx : int" + " and more" * 12,
            "tuned": "Return the sorted keys whose values match.",
            "scores": {"base": 0.09, "tuned": (i % 50) / 50},
        }
        for i in range(200)
    ]  # fmt: skip
    if hostile:
        _poison(run_dir, samples)
    _jsonl(run_dir.samples, samples)
    return run_dir


def _poison(run_dir: RunDir, samples: list[dict]) -> None:
    """Put markup where a data set's author or a model could put it."""
    for sample in samples:
        for field in ("reference", "base", "tuned"):
            sample[field] = HOSTILE
        sample["prompt"] = [{"role": HOSTILE, "content": HOSTILE + "\x00\u202e]]>"}]
    plan = json.loads(run_dir.plan.read_text())
    plan["unknown"], plan["terms"][1]["formula"] = [HOSTILE], HOSTILE
    plan["limits"][0]["name"] = plan["speeds"][0]["device"] = HOSTILE
    run_dir.plan.write_text(json.dumps(plan))
    data = json.loads(run_dir.data.read_text())
    data["mask_samples"]["train"][0]["tokens"][:2] = [HOSTILE, "\x1b[31m"]
    data["splits"]["train"]["dropped"] = {HOSTILE: 4}
    run_dir.data.write_text(json.dumps(data))
    resolved = yaml.safe_load(run_dir.resolved.read_text())
    resolved["name"] = HOSTILE
    resolved["decisions"][0]["reason"] = HOSTILE
    run_dir.resolved.write_text(yaml.safe_dump(resolved))
    run_dir.recipe.write_text(f"name: {HOSTILE}\n")
