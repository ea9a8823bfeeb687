"""Each script of this folder is run by an environment of tox, which the page about platforms names."""

import configparser
import re
from pathlib import Path

import pytest

from tests.platforms import helpers

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCRIPTS = sorted(path.stem for path in HERE.glob("*.py") if "__main__" in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("script", [name for name in SCRIPTS if not name.startswith("test_")])
def test_a_script_is_run_by_an_environment_that_the_page_about_platforms_names(script):
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    command = f"python -m tests.platforms.{script}"
    found = [section for section in tox.sections() if command in tox[section].get("commands", "")]
    assert len(found) == 1, f"{command} is a command of {found} in tox.ini; expected of one environment"
    page = (ROOT / "docs/explanation/platforms.md").read_text(encoding="utf-8")
    assert f"`tox -e {found[0].removeprefix('testenv:')}`" in page


def test_the_scripts_install_what_the_extra_test_is_made_of():
    wanted = helpers.runtime_requirements() + helpers.requirements_of("test")
    names = {re.split(r"[^\w-]", requirement)[0] for requirement in wanted}
    assert {"pytest", "numpy", "openai"} <= names
    assert "relay_mp" not in names
