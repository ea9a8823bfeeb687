"""Named subscribers that do what no subscriber should, once. Imported by dispatcher processes."""

import os

from named_subscribers import Lines

from relay_mp import scope


class Exits(Lines):
    """Lines that ends its own process at once on the first mark `exit`."""

    def __call__(self, event):
        super().__call__(event)
        if event.name == "exit" and not event.redelivered:
            os._exit(3)


class EmitsMany(Lines):
    """Lines that answers each mark `many` with 10,000 marks."""

    def __call__(self, event):
        super().__call__(event)
        if event.name == "many":
            for i in range(10_000):
                scope.event(f"{i}")
