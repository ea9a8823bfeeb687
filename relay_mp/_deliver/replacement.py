"""Named subscribers give way to others at one place in the stream.

What is before the place goes to the old ones, what is behind it to the new ones: none of it to both or to neither.
Runs in the dispatcher's thread, so that nothing is delivered meanwhile, and the old have closed their files when
the new are made, unless a callback asks for it: then they do so once they have had their last event.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from relay_mp._deliver import named
from relay_mp._deliver.subscriptions import Subscription, Subscriptions

__all__ = ["Named", "replace"]


class Named(NamedTuple):
    """A global subscriber that is named rather than passed."""

    name: str
    target: str
    arguments: dict[str, Any]


def replace(
    subscriptions: Subscriptions,
    remove: Sequence[str],
    add: Sequence[Named],
    position: Callable[[], int],
    delivered: int,
) -> None:
    """Ends the registrations of those names that there are, and begins others. Idempotent.

    If one cannot be made, all are as before: those that were ended begin again at the same place.

    Args:
        remove: names.
        add: what is there already, under the same name and with the same arguments, goes on as it is.
        position: tells the place; asked once emitters know that somebody listens.
        delivered: up to where the stream is delivered.

    Raises:
        SubscriberError: a name is taken, or its target cannot be made.
        SessionError: there is no room for it where registrations are kept.
    """
    with subscriptions.held():
        _replace(subscriptions, remove, add, position, delivered)


def _replace(
    subscriptions: Subscriptions,
    remove: Sequence[str],
    add: Sequence[Named],
    position: Callable[[], int],
    delivered: int,
) -> None:
    wanted = {each.name: each for each in add}
    known = [subscription for name in remove if (subscription := subscriptions.live(name, None)) is not None]
    ended = [each for each in known if wanted.get(each.name) != _definition(each)]
    begun: list[str] = []
    try:
        _end(subscriptions, [each.name for each in ended], position, delivered)
        for each in add:
            live = subscriptions.live(each.name, None)
            if live is None or _definition(live) != each:
                _begin(subscriptions, each, position)
                begun.append(each.name)
    except BaseException:
        _end(subscriptions, begun, position, delivered)
        for subscription in ended:
            _begin(subscriptions, _definition(subscription), position)
        raise


def _definition(subscription: Subscription) -> Named:
    return Named(subscription.name, subscription.target or "", subscription.arguments or {})


def _end(subscriptions: Subscriptions, names: Sequence[str], position: Callable[[], int], delivered: int) -> None:
    for name in names:
        subscriptions.remove(name, None, position)
    subscriptions.prune(delivered)


def _begin(subscriptions: Subscriptions, wanted: Named, position: Callable[[], int]) -> None:
    subscriptions.require_free(wanted.name, None)
    name, target, arguments = wanted
    callback = named.resolve(target, arguments)
    subscriptions.add(Subscription(name, callback, None, target=target, arguments=arguments), position)
