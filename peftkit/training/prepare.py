"""From a recipe to everything that is known before a weight is read."""

from __future__ import annotations

import dataclasses
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.plugins import Decision, Machine
from peftkit.recipe.trackers import ALL, OPTION, reported_to
from peftkit.reporting.trackers.tracking import Tracking
from peftkit.rundir import status as run_state
from peftkit.rundir.paths import RunDir
from peftkit.rundir.status import PROCESSES, RunStatus
from peftkit.system.process import Process
from peftkit.system.screen import Screen
from peftkit.system.signals import StopRequest
from peftkit.system.units import gibibytes
from peftkit.training.zero import settle_deepspeed

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from peftkit.preprocessing.pipeline import Prepared
    from peftkit.recipe.build import Built
    from peftkit.recipe.schema import Recipe


DATE = "data.dialogue.date"
"""The recipe's key of the day on which rows are rendered."""
_RECORDING = (
    "dataloader_pin",
    "dataset_kwargs",
    "disable_tqdm",
    "include_num",
    "logging_",
    "save_",
)
"""How the options begin that decide what is logged and kept, and no number of the training."""


@dataclass(frozen=True)
class Job:
    """Hold everything that is known before a weight is read."""

    run_dir: RunDir
    recipe: Recipe
    machine: Machine
    built: Built
    tokenizer: PreTrainedTokenizerBase
    prepared: Prepared
    identity: str
    """Of the run: sha256 of the resolved recipe and the data that it began with."""
    told: str = ""
    """The same of the recipe and the data now, which were allowed to change."""
    drift: tuple[str, ...] = ()
    """What of them changed, as `key: old -> new`."""


@dataclass(frozen=True)
class Session:
    """Hold what lives while one call runs: screen, signals, state on disk, trackers."""

    screen: Screen
    stop: StopRequest
    status: RunStatus
    tracking: Tracking


def prepare(recipe: Recipe, run_dir: RunDir, screen: Screen, *, allow_drift: bool = False) -> Job:
    """Build every section, then read and audit the data; no weight is read."""
    from peftkit.system.quiet import quiet_stack

    quiet_stack()
    from peftkit.models.load import load_config, max_positions
    from peftkit.models.load_errors import check_trains
    from peftkit.preprocessing.pipeline import prepare as prepare_data
    from peftkit.recipe.blame import blamed
    from peftkit.recipe.build import build
    from peftkit.recipe.identity import identity

    process = run_dir.process
    machine = weakest_machine(process)
    recipe = on_its_day(recipe, run_dir)
    if recipe.method.options.get("use_cpu") and machine.device != "cpu":
        machine = _as_cpu(machine)
    with blamed(recipe, "model.path", "model"):
        fetch_dtype(recipe)
    built = shared(build(recipe, machine), process)
    settle_deepspeed(recipe, built.method.config)
    same_recipe = partial(run_state.check_same_recipe, allow_drift=allow_drift)
    changed = process.by_main(same_recipe, run_dir, built.resolved, process.world_size)
    say_recipe(recipe, built, run_dir, screen)
    with blamed(recipe, "model.path", "model"):
        check_weights_fit(recipe, built, machine)
        config = load_config(recipe.model)
        check_trains(config, built.method.kind)
        built.method.check_config(config)
        longest = max_positions(config)
    tokenizer = tokenizer_of(recipe, built)
    built = with_tokens(built, config, screen)
    built = dated(built, tokenizer)
    recipe = built.recipe
    say_decisions([d for d in built.decisions if d.key == DATE], screen)
    prepared = prepare_data(built, tokenizer, max_positions=longest)
    changed += process.by_main(
        run_state.check_same_data, run_dir, prepared.fingerprint, allow_drift=allow_drift
    )
    say_data(prepared, screen)
    check_adapter_names(recipe, built)
    told = identity(built.resolved, prepared.fingerprint, num_processes=process.world_size)
    own = process.by_main(run_state.identity_of_run, run_dir, told, has_drifted=bool(changed))
    return Job(run_dir, recipe, machine, built, tokenizer, prepared, own, told, changed)


def say_recipe(recipe: Recipe, built: Built, run_dir: RunDir, screen: Screen) -> None:
    """Say where a recipe's run goes, and what was decided for it."""
    screen.say(f"{recipe.name} -> {run_dir.path}")
    for line in recipe.replaced:
        screen.say(f"  decided  {line}")
    say_decisions(built.decisions, screen)
    say_hints(built.hints, screen)
    say_trackers(recipe, screen)


def say_data(prepared: Prepared, screen: Screen) -> None:
    """Say what the rows of each split are, and what was done to them."""
    for split, audit in prepared.audit.items():
        screen.say(f"  data     {split}: {audit.describe()}")
    for note in prepared.notes:
        screen.say(f"  data     {note}")


def on_its_day(recipe: Recipe, run_dir: RunDir) -> Recipe:
    """Give a recipe the day on which its run began, where that was recorded."""
    earlier = run_dir.read_resolved().get("data") or {}
    recorded = (earlier.get("dialogue") or {}).get("date")
    return _with_date(recipe, str(recorded)) if recorded else recipe


def dated(built: Built, tokenizer: PreTrainedTokenizerBase) -> Built:
    """Record today's date where rows are rendered with it: on another day they would be others."""
    from peftkit.preprocessing.chat_template import ChatTemplate

    rendering = built.recipe.data.dialogue
    if rendering.date or not tokenizer.chat_template:
        return built
    if not ChatTemplate(tokenizer, rendering).writes_date:
        return built
    today = date.today().isoformat()
    decision = Decision(DATE, today, "the chat template writes the date, which is kept on resume")
    data = built.resolved["data"]
    resolved = {**built.resolved, "data": {**data, "dialogue": {**data["dialogue"], "date": today}}}
    return dataclasses.replace(
        built,
        recipe=_with_date(built.recipe, today),
        decisions=(*built.decisions, decision),
        resolved=resolved,
    )


def _with_date(recipe: Recipe, day: str) -> Recipe:
    if recipe.data.dialogue.date:
        return recipe
    dialogue = dataclasses.replace(recipe.data.dialogue, date=day)
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, dialogue=dialogue))


def shared(built: Built, process: Process) -> Built:
    """Record how many processes share each step, where they are several."""
    if process.is_alone:
        return built
    config = built.method.config
    batch, accumulated = config.per_device_train_batch_size, config.gradient_accumulation_steps
    rows = batch * accumulated * process.world_size
    why = f"a launcher started them; {batch} x {accumulated} rows each, {rows} a step"
    decision = Decision(PROCESSES, process.world_size, why)
    return dataclasses.replace(built, decisions=(*built.decisions, decision))


def weakest_machine(process: Process) -> Machine:
    """Describe what every process has: the main one's machine, with the least memory of any.

    What is decided from it is then the same in all of them. Processes without an accelerator
    share the memory of their host.
    """
    from peftkit.system.machine import describe_machine

    found = process.gather((platform.node(), describe_machine()))
    hosts = Counter(host for host, _ in found)
    sharing = [hosts[host] if one.device == "cpu" else 1 for host, one in found]
    machines = [one for _, one in found]
    return dataclasses.replace(
        machines[0],
        total_bytes=min(one.total_bytes for one in machines),
        free_bytes=min(one.free_bytes // num for one, num in zip(machines, sharing, strict=True)),
    )


def fetch_dtype(recipe: Recipe) -> None:
    """Bring the configuration of a base of the Hub here, where a decision depends on its dtype.

    What is decided must not depend on whether an earlier run left it in the cache.
    """
    from peftkit.models.load import resolve

    if recipe.model.quantize is not None and recipe.model.dtype == "auto":
        resolve(recipe.model)


def say_decisions(decisions: Sequence[Decision], screen: Screen) -> None:
    """Say what was chosen and why; what only concerns logs and files shares one line."""
    quiet = [d for d in decisions if d.key.rpartition(".")[2].startswith(_RECORDING)]
    for decision in decisions:
        if decision not in quiet:
            screen.say(f"  decided  {decision.key}: {_plain(decision.value)} ({decision.reason})")
    if quiet:
        values = (f"{d.key.rpartition('.')[2]} {_plain(d.value)}" for d in quiet)
        screen.say(f"  decided  {', '.join(values)} (reasons in resolved.yaml)")


def say_hints(hints: Sequence[str], screen: Screen) -> None:
    """Say what upstream says of options that it will drop."""
    for hint in hints:
        screen.say(f"  hint     {hint}")


def say_trackers(recipe: Recipe, screen: Screen) -> None:
    """Say which trackers are told of the run; `all` means those that are installed."""
    names = reported_to(recipe.method.options)
    if names:
        why = "; all that are installed" if recipe.method.options[OPTION] == ALL else ""
        screen.say(f"  reports  to {', '.join(names)}{why}")


def check_weights_fit(recipe: Recipe, built: Built, machine: Machine) -> None:
    """Refuse a base whose weights alone exceed the budget or the free memory.

    One that a quantization makes nobody knows how small is left to the run's own check.

    Raises:
        ResourceError: says by how much, and what the smallest setting takes.
    """
    from peftkit.errors import ResourceError
    from peftkit.memory.weights import weight_bytes
    from peftkit.models.load import resolve
    from peftkit.planning.suggestions import explain_smallest
    from peftkit.system.checkpoint_files import weight_files

    if recipe.model.path is None or recipe.model.device_map is not None:
        return
    bits = None if built.quantizer is None else built.quantizer.bits
    if built.quantizer is not None and bits is None:
        return
    found = resolve(recipe.model)
    if not found.is_local:
        return  # not downloaded yet, and the Hub's own index is not asked twice
    files = weight_files(Path(found.path_or_id) / found.subfolder)
    needed = weight_bytes(files, dtype=recipe.model.dtype, bits=bits)
    limits = [(machine.free_bytes, f"what is free on {machine.name}")]
    if recipe.memory.budget_bytes is not None:
        limits.append((recipe.memory.budget_bytes, "memory.budget"))
    for limit, name in limits:
        if needed > limit:
            raise ResourceError(
                f"the weights of {recipe.model.path} alone take {gibibytes(needed)},"
                f" {gibibytes(needed - limit)} more than {name}: {gibibytes(limit)}",
                hint=explain_smallest(recipe, machine),
            )


def check_adapter_names(recipe: Recipe, built: Built) -> None:
    """Hold an adapter's names against those of the base, which is built without its weights.

    Raises:
        UsageError: a name matches nothing; says the recipe's line.
    """
    from peftkit.errors import UsageError
    from peftkit.memory.fake import build_skeleton
    from peftkit.models.load import load_config
    from peftkit.recipe.blame import blamed

    if built.adapter is None or not built.adapter.has_names:
        return
    try:
        base = build_skeleton(
            load_config(recipe.model),
            recipe.model,
            kind=built.method.kind,
            quantizer=None,  # quantized modules keep their names
            adapter=None,
        ).model
    except UsageError:
        return  # it cannot be built so: names are compared once it is loaded
    with blamed(recipe, "adapter"):
        built.adapter.check_names(base)


def tokenizer_of(recipe: Recipe, built: Built) -> PreTrainedTokenizerBase:
    """Load the base's tokenizer, or train that of a new model on the rows it will be trained on."""
    from peftkit.models.reader import load_reader
    from peftkit.recipe.blame import blamed

    if recipe.model.config is not None:
        return make_tokenizer(recipe, built)
    with blamed(recipe, "model.path", "model"):
        tokenizer = load_reader(recipe.model, recipe.file.parent, built.method)
    with blamed(recipe, "data.task"):
        built.task.prepare_tokenizer(tokenizer)
    return tokenizer


def with_tokens(built: Built, config: PretrainedConfig, screen: Screen) -> Built:
    """Let rows of tokens be trained that the base has not read, and say so."""
    from peftkit.models.new_tokens import with_new_tokens
    from peftkit.models.tokenizer import expected_tokens

    new = expected_tokens(built.recipe.model, config)
    if new.ids:
        had = config.get_text_config().vocab_size
        num = new.num_rows(had)
        grown = f"; {had:,} rows become {num:,}" if num > had else ""
        trained = "" if built.adapter is None else ", and they are trained"
        screen.say(
            f"  decided  rows of {len(new.ids):,} new tokens begin as the mean of the others"
            f"{trained} (ids {new.ids[0]} to {new.ids[-1]}{grown})"
        )
    return with_new_tokens(built, new)


def make_tokenizer(recipe: Recipe, built: Built) -> PreTrainedTokenizerBase:
    """Train the tokenizer of a new model on the texts of the split that will be trained on."""
    from peftkit.preprocessing.pipeline import read_texts

    options = built.tokenizer_trainer.options if built.tokenizer_trainer else {}
    config = recipe.model.config or {}
    tokenizer = built.method.train_tokenizer(
        read_texts(built),
        max_length=config.get("max_position_embeddings") or built.method.longest_row,
        **options,
    )
    if built.method.kind.reads_with == "processor":
        built.method.processor = built.method.make_processor(tokenizer, config)
    return tokenizer


def seed_of(job: Job) -> int:
    """Return the method's seed, which also draws the adapter's first weights."""
    return int(job.built.resolved["method"][job.recipe.method.name]["seed"])


def _as_cpu(machine: Machine) -> Machine:
    """Describe this machine without its accelerator, as `use_cpu: true` asks."""
    from peftkit.system.machine import host_memory

    total, free = host_memory()
    return dataclasses.replace(machine, device="cpu", total_bytes=total, free_bytes=free)


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
