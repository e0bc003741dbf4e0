"""Take the facts of PEFT's method comparison out of its repository.

    python benchmarks/recorded_peft.py FOLDER --commit SHA

FOLDER is `method_comparison/MetaMathQA` of that commit. Writes
`benchmarks/recorded/peft-metamathqa.json`: what each result file states of what was run and of what
was recorded. Options of an adapter are kept where they are not peft's default.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parent / "recorded" / "peft-metamathqa.json"
SHARED = {
    "loop": {"torch_empty_cache_steps": 10},
    "max_length": 768,
    "attention": None,
    "reads": "max_memory_reserved",
    "inferred": {"longest": 704, "shortest": 100},
}
"""What the script states for all runs, beside what the files do; see the README of the runs."""
BOOKKEEPING = {
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path",
    "revision", "inference_mode",
}  # fmt: skip
MADE_BY_TRAINING = {"ADALORA": {"rank_pattern"}}
"""Options that the run itself has written into its config by its end."""
NUM_ROWS = 20_000
"""`max_steps` times `batch_size`."""


def facts_of(content: dict[str, Any]) -> dict[str, Any]:
    """Return what one result file states."""
    run, trained, meta = content["run_info"], content["train_info"], content["meta_info"]
    config, packages = run["train_config"], meta["package_info"]
    timed = [m for m in trained["metrics"] if "train time" in m]
    num_tokens = trained["metrics"][-1].get("train total tokens")
    seconds = sum(m["train time"] for m in timed)
    return {
        "model": config["model_id"],
        "dtype": config["dtype"],
        "adapter": adapter_of(run["peft_config"]),
        "autocast_adapter_dtype": config["autocast_adapter_dtype"],
        "rows": config["batch_size"],
        "mean_length": num_tokens / NUM_ROWS if num_tokens else None,
        "rows_scored": config["batch_size_eval"],
        "new_tokens": config["generation_kwargs"]["max_length"] - config["max_seq_length"],
        "optimizer": config["optimizer_type"],
        "optimizer_options": config["optimizer_kwargs"],
        "max_grad_norm": config["grad_norm_clip"],
        "autocast": config["use_amp"],
        "checkpointing": config["use_gc"],
        "compiled": config["compile"],
        "device": meta["system_info"]["accelerator"],
        "versions": {
            "torch": packages["torch-version"],
            "transformers": packages["transformers-version"],
            "peft": f"{packages['peft-version']} at {packages['peft-commit-hash']}",
        },
        "status": trained["status"],
        "num_trained": trained["num_trainable_params"],
        "recorded": {
            "memory_bytes": trained["accelerator_memory_max"],
            "tokens_per_second": num_tokens / seconds if seconds and num_tokens else None,
        },
    }


def adapter_of(config: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the plugin's name and the options that are not peft's default; None for full."""
    if config is None:
        return None
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kind = config["peft_type"]
    made = PEFT_TYPE_TO_CONFIG_MAPPING[kind]
    fields = made.__dataclass_fields__
    left_out = BOOKKEEPING | MADE_BY_TRAINING.get(kind, set())
    options = {
        key: value
        for key, value in config.items()
        if key not in left_out and (key not in fields or value != _default(fields[key]))
    }
    return {kind.lower(): options}


def _default(field: Any) -> Any:
    import dataclasses

    made = field.default_factory
    value = field.default if made is dataclasses.MISSING else made()
    return sorted(value) if isinstance(value, set) else value


def main() -> None:
    """Write the facts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--commit", required=True)
    options = parser.parse_args()
    runs = {
        file.stem: facts_of(json.loads(file.read_text(encoding="utf-8")))
        for file in sorted((options.folder / "results").glob("*.json"))
    }
    first = next(iter(runs.values()))
    same = {key for key in first if all(run[key] == first[key] for run in runs.values())}
    content = {
        "source": {
            "repository": "huggingface/peft",
            "commit": options.commit,
            "path": "method_comparison/MetaMathQA",
            "licence": "Apache-2.0",
        },
        "shared": {**SHARED, **{key: first[key] for key in first if key in same}},
        "runs": {
            name: {key: value for key, value in run.items() if key not in same}
            for name, run in runs.items()
        },
    }
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {len(runs)} runs to {TARGET}")


if __name__ == "__main__":
    main()
