"""What scoring takes on the device: prompts, their answers, and rows whose likelihood is read."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from gpu_stages.bench import Bench, clear
from gpu_stages.cases import Case, build_base, draw_adapter, write_recipe
from gpu_stages.trials import exhausting
from peftkit.system.meter import MemoryMeter
from peftkit.system.units import gibibytes

if TYPE_CHECKING:
    from peftkit.recipe.schema import EvaluateSection


def measure_evaluation(case: Case, bench: Bench, *, num_new: int) -> dict[str, Any]:
    """Score random rows with a case's model, as `evaluate` does.

    Returns: the peak of all stages, net of what was there before, and the rate of generation.
    """
    left_over = clear(bench.device)
    meter = MemoryMeter(bench.device)
    meter.start()
    before = meter.peak().num_bytes
    found, reason = exhausting(lambda: _score(case, bench, meter, num_new))
    if found is None:
        return {"fitted": False, "reason": reason, "said": f"ran out: {reason}"}
    peak = found.pop("peak_bytes") - before
    rate = found["tokens_per_second"]
    return {
        **found,
        "fitted": True,
        "peak_bytes": peak,
        "left_over_bytes": left_over,
        "said": f"allocated {gibibytes(peak)}; {rate:,.0f} tokens/s generated",
    }


def model_of(case: Case, bench: Bench) -> tuple[Any, EvaluateSection]:
    """Build a case's model with its adapter, and return how its recipe scores."""
    from peftkit.recipe.build import build

    folder = bench.folder / f"{case.name}-scored"
    built = build(write_recipe(case, folder), bench.machine)
    base = build_base(built, bench.machine, folder)
    model = base if built.adapter is None else built.adapter.attach(base)
    draw_adapter(model)
    built.method.prepare_model(model)
    return model, built.recipe.scoring


def _score(case: Case, bench: Bench, meter: MemoryMeter, num_new: int) -> dict[str, Any]:
    from peftkit.scoring.perplexity import row_nats

    model, section = model_of(case, bench)
    prompts = random_prompts(case, section.batch_size)
    seconds = generate(model, prompts, num_new=num_new, batch_size=section.batch_size)
    rows = [{"input_ids": ids, "labels": ids} for ids in prompts]
    row_nats(model, rows)
    taken = meter.peak()
    return {
        "peak_bytes": taken.num_bytes,
        "reserved_bytes": taken.num_reserved_bytes,
        "seconds": seconds,
        "num_tokens": num_new * len(prompts),
        "tokens_per_second": num_new * len(prompts) / seconds,
    }


def random_prompts(case: Case, num_rows: int) -> list[tuple[int, ...]]:
    """Draw prompts of the case's length."""
    import numpy as np

    draw, vocabulary = np.random.default_rng(2), int(case.cell.config["vocab_size"])
    return [tuple(draw.integers(vocabulary, size=case.length).tolist()) for _ in range(num_rows)]


def generate(model: Any, prompts: list[tuple[int, ...]], *, num_new: int, batch_size: int) -> float:
    """Answer prompts as `evaluate` does, every answer to its full length; return the seconds."""
    from transformers import AutoTokenizer

    from peftkit.embedded import model_path
    from peftkit.scoring.generation import Prompts, answer, generation_config

    tokenizer = AutoTokenizer.from_pretrained(str(model_path("docstring-lm")))
    config = generation_config(
        {"max_new_tokens": num_new, "min_new_tokens": num_new},
        tokenizer,
        stop_ids=(tokenizer.eos_token_id,),
    )
    begin = time.perf_counter()  # `answer` reads the tokens, and so waits for the device
    encoded = Prompts(tuple(prompts), 0, None)
    answer(model, tokenizer, encoded, config=config, batch_size=batch_size)
    return time.perf_counter() - begin
