"""speed: tokens a second of the same work on the same rows, peftkit in turns with plain trl."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from gpu_stages.bench import Bench, clear
from gpu_stages.cases import (
    METHODS,
    MODELS,
    Case,
    build_base,
    draw_adapter,
    largest_that_fits,
    rows_of,
    write_recipe,
)
from gpu_stages.evaluation import generate, model_of, random_prompts
from gpu_stages.planned import Request, plan_of
from gpu_stages.rate import matrix_rate
from gpu_stages.trials import attempted, exhausting
from peftkit.plugins import Training
from peftkit.system.meter import MemoryMeter

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import Trainer, TrainerCallback

    from gpu_stages.bench import Setting
    from peftkit.recipe.build import Built

SHARE = 34
NUM_STEPS = 6
NUM_ROUNDS = 2
SAME_LOSS = 2e-2
"""Mean losses of bfloat16 trainings of the same rows are this near, whatever the order of sums."""


@dataclass(frozen=True)
class Variant:
    """Say who trains a contest's case, and with which of the recipe's keys."""

    name: str
    overrides: tuple[str, ...] = ()
    is_trl: bool = False
    """Plain trl and peft, with none of our code between."""


VARIANTS = (
    Variant("trl", is_trl=True),
    Variant("peftkit"),
    Variant("peftkit, trl's way", ("speed={loss: native, unpad: off, fused_adapter: off}",)),
)
"""In the order of each round; a variant whose keys a recipe refuses is left out with the reason."""


@dataclass(frozen=True)
class Contest:
    """Name one piece of work; the largest model that is planned to fit does it."""

    name: str
    method: str
    largest: str = "8b"
    length: int = 4096
    only: tuple[str, ...] = ()
    """Variants that take part; all of them when empty."""

    def case(self, size: str, *, num_steps: int = NUM_STEPS, length: int | None = None) -> Case:
        """Return the case of a size."""
        return Case(size, self.method, length or self.length, num_steps=num_steps)

    @property
    def sizes(self) -> tuple[str, ...]:
        """Return the sizes that may do it, the largest first."""
        names = list(MODELS)
        return tuple(reversed(names[: names.index(self.largest) + 1]))


CONTESTS = (
    Contest("LoRA", "lora-kept-packed"),
    Contest("QLoRA, bfloat16", "qlora-kept-packed"),
    Contest("full", "full-kept-packed", largest="3b"),
    Contest("QLoRA, float32", "qlora-float32-kept-packed", only=("peftkit",)),
)
DRY_LENGTH = 64


def requests(setting: Setting) -> list[Request]:
    """Ask for the plan of each contest's largest model; a smaller one is planned when it is due."""
    return [Request(_case(contest, contest.largest, setting)) for contest in CONTESTS]


def run(bench: Bench) -> None:
    """Hold the contests, round after round, then generation."""
    chosen: dict[str, tuple[Case, Mapping[str, Any]]] = {}
    for turn in range(1 if bench.is_dry else NUM_ROUNDS):
        for contest in CONTESTS:
            for variant in VARIANTS:
                if contest.only and variant.name not in contest.only:
                    continue
                if bench.left() < 0:
                    what = f"{contest.name}, {variant.name}, round {turn + 1}"
                    bench.add("left_out", {"name": what, "reason": "no time was left"})
                    continue
                if contest.name not in chosen:
                    chosen[contest.name] = _choose(contest, bench)
                piece = partial(_race, contest, variant, turn, *chosen[contest.name], bench)
                attempted(bench, f"{contest.name}, {variant.name}", piece)
                bench.keep("summary", summarize(bench.content.get("runs", [])))
        if turn == 0:
            attempted(bench, "generation", partial(_generation, bench))


def _case(contest: Contest, size: str, setting: Setting) -> Case:
    if setting.is_dry:
        return contest.case("tiny", num_steps=1, length=DRY_LENGTH)
    return contest.case(size)


def _choose(contest: Contest, bench: Bench) -> tuple[Case, Mapping[str, Any]]:
    """Return the case of the largest model that is planned to fit, and its plan."""
    setting = bench.setting
    for size in contest.sizes:
        case = _case(contest, size, setting)
        planned = plan_of(Request(case), setting, patience=bench.left)
        predicted = planned["predicted"]
        peak = 0 if predicted is None else predicted["peak_bytes"]
        if largest_that_fits(setting, {size: peak}) == size or size == contest.sizes[-1]:
            break
    return case, planned


def _race(  # noqa: PLR0913, PLR0917
    contest: Contest,
    variant: Variant,
    turn: int,
    case: Case,
    planned: Mapping[str, Any],
    bench: Bench,
) -> None:
    clear(bench.device)
    case = dataclasses.replace(case, overrides=variant.overrides)
    found, reason = exhausting(lambda: race(case, bench, is_trl=variant.is_trl))
    run = {"contest": contest.name, "variant": variant.name, "round": turn + 1, "model": case.model}
    if found is None:
        bench.add("runs", {**run, "reason": reason})
        bench.say(f"{contest.name}, {variant.name}: ran out: {reason}")
        return
    share = share_of_rate(planned["predicted"], found["median_seconds"], bench.setting)
    bench.add("runs", {**run, **found, **share})
    shown = "" if share["share_of_rate"] is None else f", {share['share_of_rate']:.0%} of the rate"
    bench.say(
        f"{contest.name} ({case.model}), {variant.name}: {found['tokens_per_second']:,.0f} tokens/s"
        f"{shown}, loss {found['loss']:.4f}"
    )


def race(case: Case, bench: Bench, *, is_trl: bool) -> dict[str, Any]:
    """Train a case's steps once; return their times, the loss and the peak."""
    from peftkit.recipe.build import build

    folder = bench.folder / case.name
    built = build(write_recipe(case, folder), bench.machine)
    rows, times = rows_of(case, built), StepTimes(bench.device)
    base = build_base(built, bench.machine, folder)
    make = _trl_trainer if is_trl else _own_trainer
    trainer = make(case, built, base, rows, times.callback())
    draw_adapter(trainer.model)
    del base
    meter = MemoryMeter(bench.device)
    meter.start()
    done = trainer.train()
    taken = meter.peak()
    seconds = statistics.median(times.seconds)
    lengths = [len(ids) for ids in rows["input_ids"]]
    num_tokens = sum(lengths) / len(lengths) * case.micro_batch
    return {
        "step_seconds": times.seconds,
        "median_seconds": seconds,
        "num_tokens": num_tokens,
        "tokens_per_second": num_tokens / seconds,
        "loss": float(done.training_loss),
        "peak_bytes": taken.num_bytes,
        "reserved_bytes": taken.num_reserved_bytes,
    }


def share_of_rate(
    predicted: Mapping[str, Any] | None, seconds: float, setting: Setting
) -> dict[str, float | None]:
    """Return a second's operations, as the plan counts them, and their share of the card's rate."""
    rate = matrix_rate(setting)
    if predicted is None or rate is None:
        return {"flops_per_second": None, "share_of_rate": None}
    micro_batch = sum(
        work["num_flops"] for phase, work in predicted["work"].items() if phase != "step"
    )
    flops = micro_batch * predicted["accumulation"] / seconds
    return {"flops_per_second": flops, "share_of_rate": flops / rate}


def summarize(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each contest's variants: medians, the ratio to trl's, and whether losses are equal."""
    medians: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in runs:
        if "loss" in run:
            medians.setdefault((run["contest"], run["variant"]), []).append(run)
    found = []
    for (contest, variant), of_it in medians.items():
        speed = statistics.median(run["tokens_per_second"] for run in of_it)
        rivals = medians.get((contest, "trl"), [])
        theirs = statistics.median(r["tokens_per_second"] for r in rivals) if rivals else None
        apart = abs(of_it[0]["loss"] - rivals[0]["loss"]) if rivals else None
        found.append(
            {
                "contest": contest, "variant": variant, "model": of_it[0]["model"],
                "num_runs": len(of_it), "tokens_per_second": speed,
                "least": min(run["tokens_per_second"] for run in of_it),
                "most": max(run["tokens_per_second"] for run in of_it),
                "share_of_rate": of_it[-1]["share_of_rate"],
                "peak_bytes": max(run["peak_bytes"] for run in of_it),
                "times_trl": None if theirs is None else speed / theirs,
                "loss_apart": apart,
                "has_same_loss": None if apart is None else apart < SAME_LOSS,
            }
        )  # fmt: skip
    return found


def _own_trainer(
    _case: Case, built: Built, base: Any, rows: Dataset, callback: TrainerCallback
) -> Trainer:
    model = base if built.adapter is None else built.adapter.attach(base)
    out = built.recipe.file.parent / "trainer"
    parts = Training(model, _tokenizer(), rows, None, [callback], out)
    return built.method.trainer(parts)


def _trl_trainer(
    case: Case, built: Built, base: Any, rows: Dataset, callback: TrainerCallback
) -> Trainer:
    """Make the trainer that a user of trl alone would: its own defaults but for what is stated."""
    from peft import LoraConfig
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    chosen = METHODS[case.method]
    is_here = {} if _is_cuda(base) else {"use_cpu": True, "bf16": False}
    arguments = SFTConfig(
        output_dir=str(built.recipe.file.parent / "trl"),
        per_device_train_batch_size=case.micro_batch,
        max_steps=case.num_steps + 1,
        max_length=case.length,
        seed=0,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        dataset_kwargs={"skip_prepare_dataset": True},  # the same blocks, packed already
        **is_here,
        **chosen["method"]["sft"],
    )
    lora = None if chosen["adapter"] == "full" else chosen["adapter"]["lora"]
    trainer = SFTTrainer(
        model=base,
        args=arguments,
        train_dataset=rows,
        processing_class=_tokenizer(),
        peft_config=None if lora is None else LoraConfig(task_type="CAUSAL_LM", **lora),
        callbacks=[callback],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


@dataclass
class StepTimes:
    """Time each step, the device waited for at both ends, the first of them left out."""

    device: str
    seconds: list[float] = field(default_factory=list)
    _began: float = 0.0
    _step: int = 0

    def callback(self) -> TrainerCallback:
        """Make what a trainer tells of its steps."""
        from transformers import TrainerCallback

        times = self

        class Watch(TrainerCallback):  # type: ignore[misc]
            """Start and stop the clock."""

            def on_step_begin(self, *_: Any, **__: Any) -> None:
                times.begin()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                times.end()

        return Watch()

    def begin(self) -> None:
        """Start the clock once the device is idle."""
        self._wait()
        self._began = time.perf_counter()

    def end(self) -> None:
        """Stop the clock once the device is done."""
        self._wait()
        if self._step:
            self.seconds.append(time.perf_counter() - self._began)
        self._step += 1

    def _wait(self) -> None:
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()


def _generation(bench: Bench) -> None:
    """Generate as `evaluate` does, in turns with `model.generate` alone, of the same prompts."""
    import torch

    clear(bench.device)
    size, length, num_rows, num_new = ("tiny", 32, 2, 4) if bench.is_dry else ("8b", 256, 16, 64)
    if not bench.is_dry and bench.machine.free_bytes < 24 << 30:
        size = "1b"
    model, _ = model_of(Case(size, "lora", length), bench)
    prompts = random_prompts(Case(size, "lora", length), num_rows)
    num_tokens = num_new * num_rows
    ids = torch.tensor(prompts, device=model.get_input_embeddings().weight.device)

    def plainly() -> float:
        begin = time.perf_counter()
        with torch.no_grad():
            model.eval().generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False,
                max_new_tokens=num_new, min_new_tokens=num_new, pad_token_id=0,
            ).tolist()  # fmt: skip
        return time.perf_counter() - begin

    found: dict[str, list[float]] = {"model.generate": [], "peftkit": []}
    for _ in range(NUM_ROUNDS + 1):
        found["model.generate"].append(plainly())
        found["peftkit"].append(generate(model, prompts, num_new=num_new, batch_size=num_rows))
    rates = {name: num_tokens / statistics.median(times[1:]) for name, times in found.items()}
    bench.keep("generation", {"model": size, "num_rows": num_rows, "num_new": num_new,
                              "length": length, "tokens_per_second": rates})  # fmt: skip
    bench.say("generation: " + ", ".join(f"{k} {v:,.0f} tokens/s" for k, v in rates.items()))


def _is_cuda(model: Any) -> bool:
    return bool(next(model.parameters()).is_cuda)


def _tokenizer() -> Any:
    from transformers import AutoTokenizer

    from peftkit.embedded import model_path

    return AutoTokenizer.from_pretrained(str(model_path("docstring-lm")))
