"""What every Python process under `relay-mp run` executes first: the sitecustomize that it hides, then our own.

Python imports a module of this name before the program. `relay-mp run` puts this directory first on PYTHONPATH, which
children inherit. A failure of ours costs the program nothing but one line.
"""

import importlib.machinery
import importlib.util
import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def _execute_hidden() -> None:
    """Executes the sitecustomize that would have been found without this one, under that name."""
    others = [path for path in sys.path if os.path.abspath(path or os.curdir) != _HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


def _join() -> None:
    try:
        from relay_mp.cli import joining

        joining.join()
    except Exception as error:
        sys.stderr.write(f"relay-mp run: process {os.getpid()} is not recorded: {type(error).__name__}: {error}\n")


try:
    _execute_hidden()
finally:
    _join()
