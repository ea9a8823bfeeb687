"""What sections of several formats check alike: least values, URLs, headers, queues, extras.

Each looks at fields of a section by their usual names and says what is wrong to the section's report. Looks at the
environment, and changes nothing. Nothing that may be a secret is repeated.
"""

import importlib.util
import os
from typing import Any
from urllib.parse import urlsplit

from relay_mp.observability.export.batch_queue import Limits
from relay_mp.observability.export.endpoint import header_trouble
from relay_mp.observability.export.findings import Report

__all__ = ["check_at_least", "check_extra", "check_limits", "check_requests", "check_url"]


def check_at_least(section: Any, report: Report, least: int, *names: str) -> None:
    """Fields that are None, or no less than that."""
    for name in names:
        value = getattr(section, name)
        if value is not None and value < least:
            report.key(name).unsupported(f"is {value}; expected at least {least}")


def check_url(url: str, report: Report) -> None:
    """A receiver's address; `report` is about the field that has it."""
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not url.strip():
        report.unsupported("is empty; expected http://host... or https://host...")
    elif not is_one:
        report.unsupported("is not an address; expected http://host... or https://host...")
    elif parts.username or parts.password:
        report.unsupported("holds a user or password; put them into header_env, as an authorization header")


def check_requests(section: Any, report: Report) -> None:
    """`timeout_millis`, `headers` and `header_env` of a receiver."""
    check_at_least(section, report, 1, "timeout_millis")
    over_grpc = getattr(section, "transport", None) == "grpc"
    for kind in ("headers", "header_env"):
        for name in getattr(section, kind):
            trouble = header_trouble(name, section.headers[name] if kind == "headers" else None, over_grpc=over_grpc)
            if trouble:
                report.key(kind).key(name).unsupported(trouble)
    plain = {name.lower() for name in section.headers}
    for name, variable in section.header_env.items():
        message = _trouble_of_variable(variable, over_grpc)
        if name.lower() in plain:
            message = "is in headers too; keep one of them"
        if message:
            report.key("header_env").key(name).unsupported(message)


def _trouble_of_variable(variable: str, over_grpc: bool) -> str | None:
    # Its name is not repeated: people put the secret itself there by mistake.
    if not variable:
        return "is empty; expected the name of an environment variable"
    value = os.environ.get(variable)
    if value is None:
        return "names an environment variable that is not set"
    trouble = header_trouble("x", value, over_grpc=over_grpc)
    return trouble and f"names an environment variable whose value {trouble}"


def check_limits(section: Any, report: Report) -> None:
    """`limits`, the bounds of a queue."""
    try:
        Limits(**section.limits)
    except (TypeError, ValueError) as error:
        report.key("limits").unsupported(f"cannot be used: {error}")


def _has_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of a package around it
        return False


def check_extra(extra: str, report: Report, *modules: str) -> None:
    """Whether what an extra installs is there."""
    if not all(map(_has_module, modules)):
        report.error("missing_extra", f"needs the extra {extra!r}: pip install 'relay_mp[{extra}]'")
