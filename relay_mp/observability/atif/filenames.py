"""File names from templates: what metadata says goes into them only as far as it is safe in a path.

"{metadata.user:-nobody}/{session_id}.json"  ──▶  "alice/0192....json"
"""

import re
from typing import Any

__all__ = ["check_template", "render"]

MAX_PART_CHARACTERS = 64

_PLACEHOLDER = re.compile(r"\{(session_id|metadata\.[^{}:]+)(?::-([^{}]*))?\}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def check_template(template: str) -> None:
    """Refuses a template that could leave its directory, or name two trajectories alike.

    Raises:
        ValueError: it has no `{session_id}`, an unknown placeholder, or is not a relative path.
    """
    if "{session_id}" not in template:
        raise ValueError(f"filename_template {template!r} has no '{{session_id}}': two runs would write one file")
    unknown = re.search(r"[{}]", _PLACEHOLDER.sub("", template))
    if unknown:
        raise ValueError(
            f"filename_template {template!r} has a brace that is not a placeholder; expected {{session_id}}, "
            "{metadata.KEY} or {metadata.KEY:-OTHERWISE}"
        )
    parts = _PLACEHOLDER.sub("x", template).split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in template:
        raise ValueError(f"filename_template {template!r} is not a relative path that stays in its directory")


def render(template: str, session_id: str, metadata: Any) -> str:
    """The relative path. A key that the metadata lacks gives what is after `:-`, or "unknown"."""

    def value(match: re.Match[str]) -> str:
        name, otherwise = match.groups()
        if name == "session_id":
            return safe(session_id)
        found = metadata.get(name.removeprefix("metadata.")) if isinstance(metadata, dict) else None
        usable = found if isinstance(found, (str, int, float)) and not isinstance(found, bool) else None
        return safe(str(usable) if usable is not None else otherwise or "unknown")

    return _PLACEHOLDER.sub(value, template)


def safe(text: str) -> str:
    """One component of a path: ASCII letters, digits, `.`, `_`, `-`; no leading dot, bounded length."""
    return _UNSAFE.sub("-", text).lstrip(".")[:MAX_PART_CHARACTERS] or "unknown"
