"""Record which weights an adapter was trained on, and refuse others under the same name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peftkit.errors import UsageError
from peftkit.rundir.paths import write_json
from peftkit.rundir.records import read_record
from peftkit.system.weights_digest import BaseIdentity

FILE = "base.json"
RESUME = "resume"
"""The use that makes other weights the run's own."""


def record_base(folder: Path, name: str, identity: BaseIdentity) -> None:
    """Write beside a run or an adapter which weights it belongs to, if nothing says so yet.

    Args:
        name: of the base, as the recipe names it.
    """
    file = folder / FILE
    if not file.is_file():
        write_json(file, {"name": name, **identity.to_json(), "others": []})


def check_base(folder: Path, identity: BaseIdentity, *, use: str, allow_other: bool = False) -> str:
    """Refuse weights that are not those which a run or an adapter was trained on.

    Args:
        folder: of the run or the adapter; one without a record, of another program, takes any.
        use: what they are taken for: `resume`, `evaluate`, `merge` ...
        allow_other: go on, and record it.

    Returns:
        a sentence about the other base that was allowed; empty where it is the same.

    Raises:
        UsageError: shows both.
    """
    file = folder / FILE
    content = read_record(file) if file.exists() else {}
    allowed_by = "--allow-drift" if use == RESUME else "--allow-other-base"
    known = BaseIdentity.from_json(content)
    if not known.differs(identity) or _was_resumed_on(content, identity):
        return ""
    said = (
        f"{folder} was trained on other weights of {content.get('name')}: {known}, now {identity}"
    )
    if not allow_other:
        raise UsageError(
            f"{said}; with these it would be another model",
            hint=f"bring those weights back, or go on with these by {allowed_by}",
        )
    others = [*content.get("others", ()), {"use": use, **identity.to_json()}]
    write_json(file, {**content, "others": others})
    return f"{said}; allowed by {allowed_by}"


def _was_resumed_on(content: dict[str, Any], identity: BaseIdentity) -> bool:
    """Tell whether the training itself went on with these weights, which was allowed then."""
    return any(
        not BaseIdentity.from_json(other).differs(identity)
        for other in content.get("others", ())
        if other.get("use") == RESUME
    )
