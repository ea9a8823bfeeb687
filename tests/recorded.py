"""Recorded events for the tests of what reads them: lines as AtofExporter writes them, with times of one's choosing."""

import json

from relay_mp.events import rfc3339

START_US = 1767225600_000000
"""2026 begins."""

ORIGIN = "relay_mp.origin"


def uuid(number):
    """A UUID for a number."""
    return f"00000000-0000-7000-8000-{number:012x}"


def line(kind, number, at_us, *, name="work", category="function", parent=None, metadata=None, pid=7, **fields):
    """A line; `at_us` counts from START_US."""
    event = {
        "atof_version": "0.1",
        "category": None if kind == "mark" else category,
        "category_profile": None,
        "data": None,
        "data_schema": None,
        "kind": "mark" if kind == "mark" else "scope",
        "metadata": metadata,
        "name": name,
        "parent_uuid": None if parent is None else uuid(parent),
        "timestamp": rfc3339(START_US + at_us),
        "uuid": uuid(number),
        **fields,
    }
    if kind != "mark":
        event |= {"scope_category": kind, "attributes": []}
    if pid is not None:
        origin = {"pid": pid, "seq": at_us, "session": "1-2-3-4", "thread_id": pid}
        event["metadata"] = {**(metadata or {}), ORIGIN: origin}
    return json.dumps(event, sort_keys=True, separators=(",", ":"))


def scope_lines(number, start_us, end_us, **fields):
    """A scope's start and end."""
    ending = {key: fields.pop(key) for key in ("metadata", "data") if key in fields}
    return [line("start", number, start_us, **fields), line("end", number, end_us, **fields, **ending)]


def error(kind="ValueError", message="no"):
    """The metadata of an end after an exception."""
    return {"otel.status_code": "ERROR", "exception.type": kind, "exception.message": message}


def answer(prompt, completion, cost=None):
    """An OpenAI chat completion."""
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    message = {"role": "assistant", "content": "hello"}
    return {
        "object": "chat.completion",
        "model": "gpt-test",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": usage if cost is None else {**usage, "cost": cost},
    }
