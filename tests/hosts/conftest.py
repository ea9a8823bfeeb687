"""The packages of hosts: those of the extra `hosts` need not be installed, unless `tox -e hosts` says so."""

import importlib.util
import os
import shutil

import pytest

PROGRAMS = {"redis-server": "redis"}
"""By the Python package whose tests need them; Debian's packages have the same names."""


@pytest.fixture
def needs():
    """`needs("gevent")`: leaves the test out where a package is not there; in `tox -e hosts` that is a failure."""

    def check(*packages: str) -> None:
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        missing += [name for name, of in PROGRAMS.items() if of in packages and shutil.which(name) is None]
        if missing and os.environ.get("RELAY_MP_TEST_HOSTS") == "required":
            pytest.fail(f"{', '.join(missing)} is not installed; see the extra `hosts`")
        if missing:
            pytest.skip(f"{', '.join(missing)} is not installed; `tox -e hosts` has it")

    return check
