"""`plugins.toml`: which files count, and how they are laid over one another."""

import asyncio
from pathlib import Path

import pytest
from plugin_cases import Noting, names

from relay_mp import PluginError, plugin
from relay_mp._plugins import files

pytestmark = pytest.mark.usefixtures("no_plugins_after")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_systems_file_is_over_the_users_and_code_over_both(tmp_path):
    noting = Noting()
    plugin.register("a", noting)
    user = '[[components]]\nkind = "a"\n[components.config]\nl = [1]\nx = "user"\nu = 1\n'
    write(tmp_path / "xdg" / "relay_mp" / "plugins.toml", user)
    write(files.SYSTEM_FILE, '[[components]]\nkind = "a"\n[components.config]\nl = [2]\nx = "system"\ns = 1980-01-01\n')
    found = plugin.activate({"components": [{"kind": "a", "config": {"l": [3], "x": "code"}}]})
    assert noting.calls[-1] == ("register", {"l": [3, 2, 1], "s": "1980-01-01", "u": 1, "x": "code"})
    assert [each["code"] for each in found["diagnostics"]] == ["plugin.configuration_inherited"] * 2


def test_a_named_file_takes_the_place_of_the_users(tmp_path):
    noting = Noting()
    plugin.register("a", noting)
    write(tmp_path / "xdg" / "relay_mp" / "plugins.toml", "not toml")
    named = write(tmp_path / "mine.toml", '[[components]]\nkind = "a"\nconfig = {x = "mine"}\n')
    assert asyncio.run(plugin.initialize({}, named))["diagnostics"] == []  # it was asked for, and not merely found
    assert noting.calls[-1] == ("register", {"x": "mine"})
    with pytest.raises(PluginError, match="missing.toml cannot be used"):
        plugin.activate({}, tmp_path / "missing.toml")
    assert names() != []


def test_a_file_at_and_above_its_bound(tmp_path, monkeypatch):
    text = "version = 1\n# filled\n"
    path = write(tmp_path / "mine.toml", text)
    monkeypatch.setattr(files, "MAX_FILE_BYTES", len(text))
    plugin.activate({}, path)
    monkeypatch.setattr(files, "MAX_FILE_BYTES", len(text) - 1)
    with pytest.raises(PluginError, match=f"has more than {len(text) - 1} bytes"):
        plugin.activate({}, path)
