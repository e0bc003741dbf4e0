"""Train what a recipe says: the straight line from a recipe to a finished run directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError
from peftkit.recipe.trackers import reported_to
from peftkit.reporting.trackers.tracking import tracking
from peftkit.rundir import checkpoints as resume
from peftkit.rundir import status as run_state
from peftkit.rundir.base_record import FILE, RESUME, check_base, record_base
from peftkit.rundir.drift import check_stack, drift, record_drift, with_earlier
from peftkit.rundir.metrics import note_kept, restore_metrics
from peftkit.rundir.paths import RunDir, write_atomically, write_json
from peftkit.rundir.status import RunStatus
from peftkit.rundir.whole import (
    find_lost,
    find_metrics_damage,
    find_score_damage,
    find_training_damage,
    is_damaged,
)
from peftkit.system.apart import apart
from peftkit.system.exhaustion import exhaustion_explained
from peftkit.system.process import this_process
from peftkit.system.screen import Screen
from peftkit.system.seals import seal_text
from peftkit.system.signals import catching_signals
from peftkit.system.units import duration, gibibytes
from peftkit.training.load import load_last, load_model, load_trained
from peftkit.training.prepare import Job, Session, prepare
from peftkit.training.processes import (
    check_alike,
    check_device,
    check_sharding,
    is_cut,
    loss_of_others_explained,
)
from peftkit.training.shards import is_sharded
from peftkit.training.track import open_trackers
from peftkit.training.zero import is_by_deepspeed

if TYPE_CHECKING:
    from peft import PeftModel
    from rich.console import Console
    from transformers import PreTrainedModel

    from peftkit.planning.admission import Admission
    from peftkit.recipe.schema import Recipe


def run(
    recipe: Recipe,
    *,
    out: str | Path | None = None,
    dry_run: bool = False,
    allow_drift: bool = False,
    console: Console | None = None,
) -> RunDir:
    """Train, evaluate and report; resume where an earlier call with the same recipe stopped.

    Args:
        out: the run directory; `runs/NAME` otherwise.
        dry_run: do all but train, and write nothing.
        allow_drift: go on although recipe, rows, base, stack or device are others than before, as
            far as its checkpoints fit, and record it.

    Raises:
        UsageError: the directory belongs to another run, or what computes it changed, which lists
            what differs; or the processes are not of one run.
        DataError: the audit refuses the rows; no weight was read.
        ResourceError: memory, the budget or the disk does not suffice.
        DivergedError: a step's loss is not a number; the last checkpoint is kept.
        StoppedError: a signal came; says what is on disk.
    """
    process = this_process()
    check_sharding(recipe, process)
    check_device(process)
    check_alike(recipe, process)
    screen = Screen(console, process)
    run_dir = RunDir(Path(out or f"runs/{recipe.name}"), process)
    if dry_run:
        load_model(prepare(recipe, run_dir, screen, allow_drift=allow_drift), screen)
        screen.say("dry run: nothing was trained or written")
        return run_dir
    status = RunStatus(run_dir)
    with (
        catching_signals(process) as stop,
        run_state.claimed(run_dir) as status.held,
        run_state.recorded(status),
        loss_of_others_explained(process, stop),
        exhaustion_explained("running"),
        tracking(run_dir, reported_to(recipe.method.options), screen) as boards,
    ):
        session = Session(screen, stop, status, boards)
        job = prepare(recipe, run_dir, screen, allow_drift=allow_drift)
        if not process.by_main(is_finished, job, screen):
            process.by_main(begin, job, status, screen, allow_drift)
            process.by_main(admit, job, screen)
            if not process.by_main(is_scored, job, screen):
                evaluate(job, train(job, session), screen)
            process.by_main(finish, job, session)
    return run_dir


def is_finished(job: Job, screen: Screen) -> bool:
    """Tell whether this very run is done already, and whole, and say so."""
    status = run_state.read_status(job.run_dir)
    if status.get("state") != "finished" or status.get("identity") != job.identity or job.drift:
        return False
    lost = list(find_lost(job.run_dir, is_scored=job.recipe.evaluate is not None))
    for line in lost:
        screen.say(f"  lost     {line}; it is made again")
    if not lost:
        screen.say(f"already finished: {job.run_dir.trained}")
    return not lost


def is_scored(job: Job, screen: Screen) -> bool:
    """Tell whether training and evaluation are over, and all that they left is whole."""
    run_dir = job.run_dir
    is_whole = run_state.is_trained(run_dir) and (
        job.recipe.evaluate is None or find_score_damage(run_dir) is None
    )
    if is_whole:
        screen.say(f"  trained already: {run_dir.trained}")
    return is_whole


def begin(job: Job, status: RunStatus, screen: Screen, allow_drift: bool) -> None:
    """Write what this run is: recipe, resolved recipe, versions, base and the data's audit.

    Raises:
        UsageError: what has trained already did so on other weights of the base, or by other means.
    """
    from peftkit.models.versions import describe_versions
    from peftkit.preprocessing.masked_rows import data_json
    from peftkit.recipe.build import dump_resolved

    run_dir = job.run_dir
    run_state.check_same_run(run_dir, job.identity)
    versions = describe_versions(job.recipe, job.machine, out=run_dir.path)
    before = versions_before(run_dir)
    moved = list(drift(before, versions))
    if not allow_drift and not run_state.is_trained(run_dir):
        check_stack(run_dir, moved)
    changed = [*job.drift, *settle_base(job, allow_drift), *moved]
    status.identity, status.told = job.identity, job.told
    earlier = run_state.read_status(run_dir)
    status.step, status.total_steps = run_state.progress_of(run_dir, earlier)
    if changed:
        say_drift(changed, screen)
        record_drift(
            run_dir, identity=job.identity, told=job.told, step=status.step, changed=changed
        )
    status.write("running")
    status.keep_room()
    if job.recipe.file != run_dir.resolved:  # resumed by its folder, it keeps the user's recipe
        write_atomically(run_dir.recipe, job.recipe.text)
    write_atomically(run_dir.resolved, seal_text(dump_resolved(job.built)))
    write_json(run_dir.versions, with_earlier(versions, before, has_drifted=bool(moved)))
    write_json(run_dir.data, data_json(job.prepared, job.built.method, job.tokenizer))


def versions_before(run_dir: RunDir) -> Mapping[str, Any]:
    """Return what computed this run so far; empty where nothing did, or where that is lost."""
    if run_state.has_training(run_dir):
        with suppress(ArtefactError):
            return run_dir.read_if_there(run_dir.versions)
    return {}


def say_drift(changed: Sequence[str], screen: Screen) -> None:
    """Say what is no longer as it was when the run began."""
    for line in changed:
        screen.say(f"  changed  {line}")
    screen.say("           the same bits are not promised from here on; drift.json keeps this")


def settle_base(job: Job, allow_drift: bool) -> list[str]:
    """Record the weights that are trained on, or hold them against those of an earlier call."""
    from peftkit.models.load import identify_base

    if job.recipe.model.path is None:
        return []
    identity, folder = identify_base(job.recipe.model), job.run_dir.path
    if not run_state.has_training(job.run_dir):
        (folder / FILE).unlink(missing_ok=True)
    said = check_base(folder, identity, use=RESUME, allow_other=allow_drift)
    record_base(folder, job.recipe.model.path, identity)
    return [said] if said else []


def admit(job: Job, screen: Screen) -> None:
    """Plan the step from the real rows, write the plan, and refuse one that cannot fit.

    What has trained already is not planned again: its own steps have shown what it takes.

    Raises:
        ResourceError: the plan passes the budget or what is free; no weight was read.
    """
    from peftkit.memory.lengths import lengths_of

    is_known = run_state.has_training(job.run_dir) and not job.drift
    if is_known and not is_damaged(job.run_dir, job.run_dir.plan):
        return
    lengths = lengths_of(job.prepared.encoded["train"], job.built.method, job.prepared.labels)
    found = _admission(job, lengths)
    screen.say(f"  plan     {found.said}")
    if found.content is None:
        job.run_dir.plan.unlink(missing_ok=True)  # of an earlier call that was refused
        return
    write_json(job.run_dir.plan, found.content)
    if found.refusal is not None:
        raise found.refusal


def _admission(job: Job, lengths: Sequence[int]) -> Admission:
    """Plan one of this run's processes."""
    from peftkit.planning.admission import Admission, find_admission

    if is_by_deepspeed(job.built.method.config):
        return Admission("none: what DeepSpeed leaves to each process is not planned")
    find = partial(
        find_admission, job.recipe, job.machine, lengths,
        num_processes=job.run_dir.process.world_size,
    )  # fmt: skip
    # A plan of shards makes up a group of processes, and this one is in a group already.
    return apart(find) if is_cut(job.recipe) else find()


def train(job: Job, session: Session) -> PreTrainedModel | PeftModel:
    """Train, from the newest checkpoint that loads; skip what is trained already."""
    run_dir, screen, stop = job.run_dir, session.screen, session.stop
    process = run_dir.process
    if process.by_main(run_state.is_trained, run_dir):
        stop.consequence = "the trained weights are saved; the same command evaluates them"
        screen.say(f"  trained already: {run_dir.trained}")
        with process.together():
            return load_trained(job, run_dir.trained)
    below: int | None = None
    while True:
        start, notes = process.by_main(
            resume.find_checkpoint, run_dir.checkpoints, identity=job.identity, below=below
        )
        for note in notes:
            screen.say(f"  {note}")
        try:
            model = train_from(job, start, session)
            break
        except resume.UnloadableError as error:
            screen.say(f"  ignored {error.message}")
            below = start.step if start else None
    process.by_main(say_trained, run_dir, screen)
    return model


def train_from(
    job: Job, start: resume.Checkpoint | None, session: Session
) -> PreTrainedModel | PeftModel:
    """Train from a checkpoint, or from the beginning.

    Raises:
        UnloadableError: the checkpoint is whole and cannot be loaded.
    """
    from peftkit.training.train import keep_trained, train_model

    run_dir, screen, process = job.run_dir, session.screen, job.run_dir.process
    if start is not None:
        screen.say(f"  resuming at step {start.step}")
        session.stop.consequence = f"the same command resumes at step {start.step}"
        process.by_main(mend_metrics, run_dir, start, screen)
    if start is not None and keeps_best(job):
        process.by_main(resume.check_best, start, identity=job.identity)
    if start is not None and resume.is_last(start, job.told):
        with process.together(), resume.loading(start):
            model = load_last(job, process.by_main(kept_of, job, start), screen)
        keep_trained(job, model, session)
        return model
    process.by_main(check_can_train_again, run_dir)
    with process.together():
        model = load_model(job, screen)
    train_model(job, model, start, session)
    if job.recipe.evaluate is None or not is_sharded(model):
        return model
    del model  # in shards it cannot answer; what was saved is loaded whole
    with process.together():
        return load_trained(job, run_dir.trained)


def keeps_best(job: Job) -> bool:
    """Tell whether a training leaves its best weights, and not the last."""
    options = job.built.resolved["method"][job.recipe.method.name]
    return bool(options.get("load_best_model_at_end"))


def kept_of(job: Job, last: resume.Checkpoint) -> Path:
    """Return the checkpoint that a training which ended with this one leaves."""
    found = resume.best_of(last) if keeps_best(job) else None
    if found is None:
        return last.path
    best, metric = found
    note_kept(job.run_dir.metrics, step=last.step, kept_step=best.step, best_metric=metric)
    return best.path


def mend_metrics(run_dir: RunDir, start: resume.Checkpoint, screen: Screen) -> None:
    """Take the losses that metrics.jsonl lost from the checkpoint's own record of them."""
    problem = find_metrics_damage(run_dir)
    if problem:
        restore_metrics(run_dir.metrics, resume.history_of(start))
        screen.say(f"  lost     {problem}; its losses are taken from {start.path.name}")


def check_can_train_again(run_dir: RunDir) -> None:
    """Refuse to train over damaged weights, which no checkpoint brings back.

    Raises:
        ArtefactError: says what is damaged; deleting it is the way to ask for a new training.
    """
    problem = find_training_damage(run_dir)
    if problem and run_dir.trained.is_dir() and run_dir.measured.exists():
        raise ArtefactError(
            f"{run_dir.path}: {problem}, and no whole checkpoint is of the training's end",
            hint=f"bring it back, or rm -r {run_dir.trained} to train again from the newest whole"
            " checkpoint",
        )


def say_trained(run_dir: RunDir, screen: Screen) -> None:
    """Say what the training came to."""
    measured = run_dir.read_json(run_dir.measured)
    screen.say(
        f"  trained  {measured['num_steps']} steps in {duration(measured['train_seconds'])},"
        f" {measured['tokens_per_second']:,.0f} tokens/s,"
        f" {gibibytes(measured['peak_bytes'])} peak, final loss {_loss(measured['final_loss'])}"
    )


def _loss(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def evaluate(job: Job, model: PreTrainedModel | PeftModel, screen: Screen) -> None:
    """Score base and tuned on the recipe's split, and put the scores on the model card."""
    section = job.recipe.evaluate
    if section is None:
        return
    from peftkit.evaluate import evaluate as score
    from peftkit.evaluate import render_scores, write_scores

    with (
        exhaustion_explained("evaluating"),
        screen.counting("evaluating") as progress,
    ):
        scores = score(
            job.built,
            job.prepared,
            model,
            job.tokenizer,
            split=section.split,
            limit=section.limit,
            progress=progress,
        )
    job.run_dir.process.by_main(write_scores, job.run_dir, scores)
    with suppress(OSError):
        screen.console.print(render_scores(scores))


def finish(job: Job, session: Session) -> None:
    """Write the model card and the report, and mark the run finished."""
    from peftkit.report import write_report
    from peftkit.training.save import write_run_card

    write_run_card(job)
    session.status.end("finished", exit_code=0)
    num_steps = job.run_dir.read_json(job.run_dir.measured)["num_steps"]
    open_trackers(job, session, step=num_steps)  # those of a run that an earlier call trained
    report = write_report(job.run_dir)
    session.tracking.tell()
    session.screen.say(f"  wrote    {job.run_dir.trained}")
    session.screen.say(f"           {report}")
