"""Whether the program is a notebook or an IPython shell, where code is run again, and in a loop that a wait may block.

A cell runs in the kernel's event loop. To block that is what every cell does that computes: `flush()` may do so.
A cell that registers is run again: what it registers then takes the earlier one's place.
"""

import sys

__all__ = ["is_notebook"]


def is_notebook() -> bool:
    """Whether cells are run here. IPython is not imported for the question."""
    ipython = sys.modules.get("IPython")
    get_ipython = getattr(ipython, "get_ipython", None)
    return get_ipython is not None and get_ipython() is not None
