"""Plans, made by processes of their own on the processor while the card is measuring.

A plan of an 8B takes seconds in which the card would wait. Whoever asks for one that is not ready
waits a little, then makes it itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_stages.bench import Setting, write
from gpu_stages.cases import Case, document_lengths, write_recipe

if TYPE_CHECKING:
    from peftkit.memory.planner import Plan
    from peftkit.recipe.schema import Recipe

ENTRY = Path(__file__).resolve().parent.parent / "gpu.py"
_PAUSE = 0.1


@dataclass(frozen=True)
class Request:
    """Say what is to be planned."""

    case: Case
    sizes: tuple[int, ...] = ()
    """Bytes of devices for which the longest length is asked too, with the step at that length."""

    @property
    def name(self) -> str:
        """Name its file."""
        return self.case.name

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` reads."""
        return {"case": self.case.to_json(), "sizes": list(self.sizes)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Request:
        """Undo `to_json`."""
        return cls(Case.from_json(content["case"]), tuple(content["sizes"]))


def start(setting: Setting, requests: Sequence[Request], num_workers: int) -> list[Any]:
    """Start processes that plan the requests, the first ones first; return them."""
    folder = folder_of(setting)
    folder.mkdir(parents=True, exist_ok=True)
    unique = list({request.name: request for request in requests}.values())
    content = {"requests": [request.to_json() for request in unique]}
    write(folder / "requests.json", {**content, "setting": setting.to_json()})
    command = [sys.executable, str(ENTRY), "--planner"]
    # Without a card in sight none of them makes a context on it.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [*command, f"{at}/{num_workers}", str(folder)],
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        for at in range(min(num_workers, len(unique)))
    ]


def serve(share: str, folder: Path) -> None:
    """Plan this process's share of the requests: every n-th one."""
    at, num_workers = map(int, share.split("/"))
    content = json.loads((folder / "requests.json").read_text("utf-8"))
    setting = Setting.from_json(content["setting"])
    for request in content["requests"][at::num_workers]:
        answer(Request.from_json(request), setting)


def plan_of(request: Request, setting: Setting, *, patience: Callable[[], float]) -> dict[str, Any]:
    """Return a plan, waiting for it while there is patience left.

    Args:
        patience: returns the seconds that whoever asks can still wait.
    """
    file = folder_of(setting) / f"{request.name}.json"
    is_coming = (folder_of(setting) / "requests.json").exists()
    while is_coming and not file.exists() and patience() > 0:
        time.sleep(_PAUSE)
    return json.loads(file.read_text("utf-8")) if file.exists() else answer(request, setting)


def folder_of(setting: Setting) -> Path:
    """Return where plans lie."""
    return setting.work / "plans"


def answer(request: Request, setting: Setting) -> dict[str, Any]:
    """Make a plan and write it; what cannot be planned says why."""
    from peftkit.errors import PeftkitError

    folder = folder_of(setting)
    try:
        content = _answer(request, setting, folder / request.name)
    except PeftkitError as error:
        content = {"predicted": None, "unplanned": error.message}
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / f"{request.name}.json", content)
    return content


def _answer(request: Request, setting: Setting, folder: Path) -> dict[str, Any]:
    from peftkit.memory.planner import plan

    case, machine = request.case, setting.machine
    recipe = write_recipe(case, folder)
    made = plan(recipe, lengths=document_lengths(case), machine=machine)
    longest: list[dict[str, Any]] = []
    for size in request.sizes:
        length = made.longest_length(size, micro_batch=case.micro_batch)
        predicted = None
        if length > 1:
            at = plan(recipe, lengths=[length] * case.micro_batch, machine=machine)
            predicted = describe(at, recipe, setting)
        longest.append({"total_bytes": size, "length": length, "predicted": predicted})
    return {"predicted": describe(made, recipe, setting), "longest": longest}


def describe(made: Plan, recipe: Recipe, setting: Setting) -> dict[str, Any]:
    """Return a plan as plain data, with what it computes, its time, and its evaluation."""
    from peftkit.memory.settings import matrix_dtype
    from peftkit.planning import devices
    from peftkit.planning.host_rates import measure_host
    from peftkit.planning.roofline import predict

    machine = setting.machine
    if machine.device == "cuda":
        device = devices.with_rates(devices.present(machine.name, machine.total_bytes))
    else:
        device = measure_host(machine.name, machine.total_bytes)
    dtype = matrix_dtype(recipe, machine)
    speed = predict(made, device, dtype=dtype)
    scoring = made.evaluation
    return {
        **made.to_json(),
        "matrix_dtype": dtype,
        "work": {phase: asdict(work) for phase, work in made.work.items()},
        "num_tokens": made.num_tokens * made.accumulation,
        "speed": None if speed is None else speed.to_json(),
        "evaluation": None if scoring is None else asdict(scoring),
    }
