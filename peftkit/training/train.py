"""Train the attached model through the method's own trainer, watched and stoppable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError, PeftkitError, first_line
from peftkit.memory.sharing import uncuttable_explained
from peftkit.plugins import Training
from peftkit.plugins.native import native_model
from peftkit.recipe.blame import blamed
from peftkit.recipe.upstream_hints import caught_hints
from peftkit.rundir import checkpoints as resume
from peftkit.rundir.metrics import cut_metrics, read_metrics
from peftkit.rundir.paths import RunDir, write_json
from peftkit.rundir.whole import seals_of_training
from peftkit.system.exhaustion import exhaustion_explained
from peftkit.system.meter import MemoryMeter, kind_of_peak
from peftkit.system.screen import MetricsFile, TrainingBar
from peftkit.training.diverged import diverged, find_broken
from peftkit.training.grouped import grouped
from peftkit.training.prepare import say_hints
from peftkit.training.processes import repeated_rows
from peftkit.training.refused import refusal_explained, refused_optimizer
from peftkit.training.save import save_trained
from peftkit.training.shards import settle_shards, whole_state
from peftkit.training.spread import spread
from peftkit.training.switches import switches_of
from peftkit.training.track import open_trackers
from peftkit.training.zero import check_goes_on, cut_while_training, cuts_weights

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel, Trainer

    from peftkit.recipe.schema import Recipe
    from peftkit.rundir.checkpoints import Checkpoint
    from peftkit.training.callbacks import Watch
    from peftkit.training.prepare import Job, Session


def train_model(
    job: Job, model: PreTrainedModel | PeftModel, start: Checkpoint | None, session: Session
) -> None:
    """Train from the start or a checkpoint to the end, and save what was trained.

    Raises:
        StoppedError: a signal came; a checkpoint, or the whole result, is on disk.
        DivergedError: a step's gradient or loss is not a number; the step was not taken.
        ResourceError: the budget was passed, or memory or the disk ran out.
    """
    run_dir, stop = job.run_dir, session.stop
    seconds_before = run_dir.process.by_main(_clean, run_dir, start)
    run_dir.process.by_main(open_trackers, job, session, step=start.step if start else 0)
    bar, put_back = TrainingBar(session.screen), switches_of(model)
    with (
        MetricsFile(run_dir.metrics, run_dir.process).opened() as metrics,
        cut_while_training(job.built.method.config),
    ):
        with blamed(job.recipe, f"method.{job.recipe.method.name}"), refusal_explained(job.recipe):
            trainer = _make_trainer(job, model, session, start)
        _settle_engine(trainer, job, start)
        _say_way(job, session)
        if start is None:
            _probe(trainer, job, session)
        watch = _watch(trainer, job, bar, metrics, seconds_before=seconds_before)
        with exhaustion_explained("training"), stop.deferred():
            try:
                with (
                    blamed(job.recipe),
                    refusal_explained(job.recipe, watch.has_begun),
                    resume.loading(start, watch.has_begun),
                    uncuttable_explained(),
                ):
                    trainer.train(resume_from_checkpoint=str(start.path) if start else None)
            finally:
                bar.stop()
                session.status.step = trainer.state.global_step
                session.status.total_steps = trainer.state.max_steps
            if stop.poll() and trainer.state.global_step < trainer.state.max_steps:
                return  # leaving `deferred` raises StoppedError
            if trainer.eval_dataset is not None and trainer.args.eval_strategy == "no":
                trainer.evaluate()  # once, so that validation rows never go unread
            put_back()
            keep_trained(job, model, session)


def keep_trained(job: Job, model: PreTrainedModel | PeftModel, session: Session) -> None:
    """Save trained weights, and last of all measured.json, which says that training is over."""
    process = job.run_dir.process
    process.by_main(session.status.check_place)
    broken = next(filter(None, process.gather(find_broken(model))), None)
    weights = whole_state(model, is_kept=process.is_main)
    process.by_main(_keep, job, model, broken, weights)
    session.stop.consequence = "the trained weights are saved; the same command evaluates them"


def _keep(
    job: Job,
    model: PreTrainedModel | PeftModel,
    broken: str | None,
    weights: dict[str, Tensor] | None,
) -> None:
    """Save weights that are numbers and compute some: nothing else looked at those of the end."""
    method = job.built.method
    if broken:
        steps = _step_lines(job.run_dir)
        step = int(steps[-1]["step"]) if steps else 0
        with blamed(job.recipe):
            name, checkpoints = job.recipe.method.name, job.run_dir.checkpoints
            raise diverged(name, checkpoints, step, broken, method.config)
    save_trained(job, model, weights)
    measured = _measured_before(job.run_dir) or _measure(job, model)
    write_json(job.run_dir.measured, {**measured, **seals_of_training(job.run_dir)})


def _measured_before(run_dir: RunDir) -> dict[str, Any]:
    """Return what was measured of a training whose weights are only written again."""
    with suppress(ArtefactError):
        return {} if _step_lines(run_dir) else run_dir.read_if_there(run_dir.measured)
    return {}


def _clean(run_dir: RunDir, start: Checkpoint | None) -> float:
    """Drop what lies after the checkpoint; return the seconds trained before it."""
    resume.prune(run_dir.checkpoints, keep=None)
    cut_metrics(run_dir.metrics, step=start.step if start else 0)
    lines = _step_lines(run_dir)
    return float(lines[-1]["seconds"]) if lines else 0.0


def _make_trainer(
    job: Job, model: PreTrainedModel | PeftModel, session: Session, start: Checkpoint | None
) -> Trainer:
    from peftkit.training.callbacks import Ceiling, Finite, Keeper, Patience

    adapter, stopping, above = job.built.adapter, job.recipe.early_stopping, job.recipe.stop_above
    patience = [Patience(stopping.patience, stopping.threshold)] if stopping else []
    best = resume.best_of(start) if start else None
    process = job.run_dir.process
    spread_over = partial(spread, process=process, blank_of=job.built.method.untrained)
    ceiling = [Ceiling(above.loss, above.steps, job.run_dir)] if above else []
    parts = Training(
        model=model,
        tokenizer=job.tokenizer,
        train=job.prepared.encoded["train"],
        validation=job.prepared.encoded.get("validation"),
        callbacks=(
            *(adapter.callbacks() if adapter else ()),
            *patience,
            *ceiling,
            Finite(job.recipe.method.name, job.run_dir),
            Keeper(session.stop, session.status, best[0].path if best else None),
        ),
        output_dir=job.run_dir.checkpoints,
        task=job.built.task,
        reading=grouped if process.is_alone else spread_over,
    )
    section, hints = job.recipe.method, list[str]()
    with caught_hints(f"method.{section.name}", section.options, hints):
        trainer = job.built.method.trainer(parts)
    say_hints(hints, session.screen)
    return trainer


def _settle_engine(trainer: Trainer, job: Job, start: Checkpoint | None) -> None:
    """Hold a checkpoint against the engine that cuts the model, and say what FSDP2 cuts together.

    Raises:
        UsageError: the engine cannot go on with it, or not cut what is trained.
    """
    if start is not None:
        num_processes = job.run_dir.process.world_size
        check_goes_on(start.path, trainer.args, num_processes=num_processes)
    if trainer.is_fsdp_enabled:
        settle_shards(trainer, f"method.{job.recipe.method.name}.fsdp")


def _say_way(job: Job, session: Session) -> None:
    """Say how steps are computed, and which rows they read twice."""
    if way := job.built.method.taken.describe():
        session.screen.say(f"  speed    {way}")
    rows = job.prepared.encoded["train"]
    if again := repeated_rows(job.built.method, rows, job.run_dir.process):
        session.screen.say(
            f"  data     {again} rows of an epoch are read twice, so that every process has as many"
        )


def _probe(trainer: Trainer, job: Job, session: Session) -> None:
    """Try the longest batch first: what it takes is the most that any step will."""
    from peftkit.memory.probe import probe_longest_batch

    method, process = job.built.method, job.run_dir.process
    if trainer.is_fsdp_enabled or cuts_weights(trainer.args):
        session.screen.say("  probed   nothing: the model is cut into shards as training starts")
        return
    with (
        _failure_explained(trainer.model, job.recipe),
        process.together(),
        exhaustion_explained("probing the longest batch"),
        blamed(job.recipe),
    ):
        length = probe_longest_batch(trainer, method, device=job.machine.device)
    if length is not None:
        session.screen.say(f"  probed   the longest batch, of {length:,} tokens a row: it fits")


@contextmanager
def _failure_explained(model: Any, recipe: Recipe) -> Iterator[None]:
    """Say that a model's own code or the optimizer cannot take a step, before any is taken.

    Raises:
        ArtefactError: with what the model's code raised.
        UsageError: with what the optimizer raised.
    """
    from peftkit.memory.probe import OptimizerError

    try:
        yield
    except (PeftkitError, MemoryError):
        raise
    except OptimizerError as error:
        raise refused_optimizer(recipe, error.__cause__) from error
    except Exception as error:
        name = type(native_model(model)).__name__
        raise ArtefactError(
            f"{name} cannot take a step on the longest rows: {type(error).__name__}:"
            f" {first_line(error)}; nothing was trained",
            hint="its own code raises this, for a size or an option in its config that does not"
            " go with such rows; --traceback shows where",
        ) from error


def _watch(
    trainer: Trainer, job: Job, bar: TrainingBar, metrics: MetricsFile, *, seconds_before: float
) -> Watch:
    from peftkit.training.callbacks import Watch

    watch = Watch(
        bar,
        metrics,
        MemoryMeter(job.machine.device),
        budget_bytes=job.recipe.memory.budget_bytes,
        seconds_before=seconds_before,
    )
    trainer.add_callback(watch)
    return watch


def _kept(run_dir: RunDir) -> dict[str, Any]:
    """Say which checkpoint's weights are kept, where that is the best and not the last."""
    lines = [line for line in read_metrics(run_dir.metrics) if "kept_step" in line]
    return {key: lines[-1][key] for key in ("kept_step", "best_metric")} if lines else {}


def _step_lines(run_dir: RunDir) -> list[dict[str, Any]]:
    return [line for line in read_metrics(run_dir.metrics) if "seconds" in line]


def _measure(job: Job, model: PreTrainedModel | PeftModel) -> dict[str, Any]:
    """Sum a training up from its metrics, which outlive the processes that it took."""
    from peftkit.adapters.base import count_parameters

    lines = _step_lines(job.run_dir)
    last = lines[-1] if lines else {}
    seconds, num_tokens = last.get("seconds", 0.0), last.get("num_tokens", 0)
    trainable, total = count_parameters(model, job.built.quantizer)
    measured = {
        "train_seconds": seconds,
        "num_steps": last.get("step", 0),
        "num_tokens": num_tokens,
        "tokens_per_second": round(num_tokens / max(seconds, 1e-9), 1),
        "peak_bytes": max((line["peak_bytes"] for line in lines), default=0),
        "peak_kind": kind_of_peak(job.machine.device),
        "final_loss": last.get("loss"),
        "device": job.machine.name,
        "num_trainable": trainable,
        "num_parameters": total,
        **_kept(job.run_dir),
    }
    reserved = [line["peak_reserved_bytes"] for line in lines if "peak_reserved_bytes" in line]
    return {**measured, "peak_reserved_bytes": max(reserved)} if reserved else measured
