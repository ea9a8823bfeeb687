"""The docs build without a warning, and every public name is in the index that the site has of them."""

import importlib.util
import subprocess
import sys
import zlib

import doc_blocks
import pytest

import relay_mp

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("sphinx") is None, reason="the extra `docs` is not installed; `tox -e docs` has it"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    directory = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "-n", "-q", "-b", "html", "-d", directory / "doctrees"]
    ran = subprocess.run(
        [*command, doc_blocks.DOCS, directory / "html"], capture_output=True, text=True, timeout=280, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return directory / "html"


def test_every_name_of_the_root_package_is_in_the_index(site):
    inventory = (site / "objects.inv").read_bytes()
    lines = zlib.decompress(inventory.partition(b"zlib.\n")[2]).decode().splitlines()
    names = {line.split(" py:")[0] for line in lines if " py:" in line}
    assert [name for name in relay_mp.__all__ if f"relay_mp.{name}" not in names] == []


def test_code_in_running_text_links_to_the_reference(site):
    page = (site / "guides" / "pools.html").read_text(encoding="utf-8")
    assert 'href="../reference/api/pools.html#relay_mp.pools.propagate"' in page


def test_the_site_has_search_copy_buttons_and_a_dark_theme(site):
    page = (site / "quickstart.html").read_text(encoding="utf-8")
    assert (site / "search.html").is_file()
    assert "copybutton.js" in page
    assert "theme-toggle" in page
