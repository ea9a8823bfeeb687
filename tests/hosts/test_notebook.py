"""Notebooks: a cell runs in the kernel's loop, and is run again."""

import asyncio

import pytest

import relay_mp
from relay_mp import scope, subscribers
from relay_mp._session import notebook

CELL = """
import asyncio
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()

FIRST = '''
import relay_mp
from relay_mp import scope, subscribers
seen = []
'''
REGISTERS = '''
def look(event):
    seen.append(event.name)
subscribers.register("look", look)
config = relay_mp.AtofExporterConfig()
config.output_directory, config.filename = DIRECTORY, "events.jsonl"
relay_mp.AtofExporter(config).register("file")
scope.event("mark")
subscribers.flush()
'''

async def kernel():  # as ipykernel runs its cells
    import sys
    shell.user_ns["DIRECTORY"] = sys.argv[1]
    for cell in (FIRST, REGISTERS, REGISTERS, REGISTERS, "await subscribers.flush_async(); relay_mp.shutdown()"):
        result = await shell.run_cell_async(cell, transformed_cell=cell)
        result.raise_error()
    print(shell.user_ns["seen"])

asyncio.run(kernel())
"""


def test_a_cell_that_registers_and_flushes_can_be_run_again(run_script, needs, tmp_path):
    needs("IPython")
    ran = run_script(CELL, tmp_path, environment={"IPYTHONDIR": str(tmp_path / "ipython")})
    assert ran.stdout.splitlines()[-1] == "['mark', 'mark', 'mark']"
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 3


@pytest.fixture
def in_notebook(monkeypatch):
    monkeypatch.setattr("relay_mp.subscribers.is_notebook", lambda: True)
    monkeypatch.setattr("relay_mp._session.session.is_notebook", lambda: True)


def test_outside_of_a_notebook_a_running_loop_is_not_blocked_and_a_name_not_taken_again(session):
    assert not notebook.is_notebook()
    subscribers.register("x", print)

    async def flush():
        subscribers.flush()

    with pytest.raises(relay_mp.FlushError, match="await flush_async"):
        asyncio.run(flush())
    with pytest.raises(relay_mp.SubscriberError, match="already registered"):
        subscribers.register("x", print)


def test_in_a_notebook_the_later_registration_takes_the_earlier_ones_place(session, in_notebook):
    earlier, later = [], []
    subscribers.register("x", earlier.append)
    scope.event("1")
    subscribers.register("x", later.append)
    scope.event("2")

    async def flush():
        subscribers.flush()

    asyncio.run(flush())
    assert [[event.name for event in events] for events in (earlier, later)] == [["1"], ["2"]]
