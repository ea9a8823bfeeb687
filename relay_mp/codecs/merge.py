"""Carries a change of a rendering over to the original that it was rendered from.

A codec decodes a provider's JSON into a view that knows less than the original did, so a changed view
cannot simply be rendered: what the view does not know would be lost. Instead both views are rendered,
as they were and as they are, and the difference of the two renderings is applied to the original:

    original ── decode ──► view before ── render ──► before ┐
                               │ change                     ├─ difference ──► applied to the original
                           view after ─── render ──► after ─┘

Without a change the difference is empty, and the original comes out as it went in, whatever it was.
This is a three-way merge as version control knows it, on trees; runs in the emitting process.
"""

import difflib
import json
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["align", "merge", "merge_items", "same"]


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same text: unlike `==`, `True` is not 1, and 1.0 is not 1."""
    return one is other or (one == other and _key(one) == _key(other))


def align(before: Sequence[Any], after: Sequence[Any], kind: Callable[[Any], Any]) -> list[int | None]:
    """For each item of `after`, the item of `before` that it was.

    Items that are unchanged find each other first, in order as far as that goes, then wherever they were
    moved to. What then stands in one place in both is paired in order, where `kind` of the two is the
    same. The rest is new.
    """
    old, new = [_key(item) for item in before], [_key(item) for item in after]
    found: list[int | None] = [None] * len(after)
    opcodes = difflib.SequenceMatcher(None, old, new, False).get_opcodes()
    for operation, low, high, first, last in opcodes:
        if operation == "equal":
            found[first:last] = range(low, high)
    free = dict.fromkeys(index for index in range(len(before)) if index not in found)
    for index, link in enumerate(found):
        moved = next((at for at in free if old[at] == new[index]), None) if link is None else None
        if moved is not None:
            found[index] = moved
            del free[moved]
    for operation, low, high, first, last in opcodes:
        candidates = [at for at in range(low, high) if operation == "replace" and at in free]
        for index in range(first, last):
            if candidates and found[index] is None and kind(before[candidates[0]]) == kind(after[index]):
                found[index] = candidates.pop(0)
    return found


def merge(original: Any, before: Any, after: Any) -> Any:
    """The original with the difference of `before` and `after` applied. Nothing passed is changed."""
    if same(before, after):
        return original
    if isinstance(original, dict) and isinstance(before, dict) and isinstance(after, dict):
        return _merge_objects(original, before, after)
    if isinstance(original, list) and isinstance(before, list) and isinstance(after, list):
        return _merge_lists(original, before, after)
    return after


def _merge_objects(original: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    merged = {key: item for key, item in original.items() if key in after or key not in before}
    for key, item in after.items():
        if key not in before:
            merged[key] = item
        elif not same(before[key], item):
            merged[key] = merge(original[key], before[key], item) if key in original else item
    return merged


def _merge_lists(original: list[Any], before: list[Any], after: list[Any]) -> list[Any]:
    sources = _sources(original, before)

    def combine(item: Any, link: int | None) -> Any:
        source = None if link is None else sources[link]
        return item if link is None or source is None else merge(original[source], before[link], item)

    return [combine(item, link) for item, link in zip(after, align(before, after, _kind), strict=True)]


def _kind(item: Any) -> Any:
    return item.get("type", item.get("role")) if isinstance(item, dict) else type(item)


def _sources(original: list[Any], before: list[Any]) -> list[int | None]:
    """For each item of a rendering, the item of the original that it stands for.

    That is one that has all that the rendered one has, at the same place or else anywhere. In lists of one
    length the place alone will do: a codec may have spelt an item anew.
    """
    found: list[int | None] = []
    free = set(range(len(original)))
    for index, item in enumerate(before):
        places = [index, *sorted(free - {index})]
        place = next((at for at in places if at in free and _covers(original[at], item)), None)
        found.append(place)
        free.discard(-1 if place is None else place)
    if len(original) == len(before):
        return [index if place is None and index in free else place for index, place in enumerate(found)]
    return found


def _covers(original: Any, item: Any) -> bool:
    if isinstance(original, dict) and isinstance(item, dict):
        return all(key in original and _covers(original[key], part) for key, part in item.items())
    return same(original, item)


def merge_items(
    original: Sequence[Any],
    before: Sequence[Any],
    after: Sequence[Any],
    kind: Callable[[Any], Any],
    render: Callable[[Any], list[Any]],
) -> list[Any]:
    """A list of the original, item by item the source of `before`, after the view's list has changed.

    Args:
        original: the provider's items.
        before: what each of them was decoded to.
        after: the view's list now.
        kind: what two items must have in common to be versions of one.
        render: a view's item as the provider's, one or several.
    """
    merged: list[Any] = []
    for item, link in zip(after, align(before, after, kind), strict=True):
        if link is None:
            merged += render(item)
        elif same(before[link], item):
            merged.append(original[link])
        else:
            old, new = render(before[link]), render(item)
            alone = len(old) == len(new) == 1
            merged += [merge(original[link], old[0], new[0])] if alone else new
    return merged
