"""Workers that import the program: what it registers as it is imported, and what it should have guarded."""

import pytest

RUN = """
import sys
del sys.argv[0]
main = sys.modules["__main__"]
main.__file__ = sys.argv[0]  # what multiprocessing has its workers import
with open(sys.argv[0]) as file:
    exec(compile(file.read(), sys.argv[0], "exec"), vars(main))
"""

REGISTERS = """
import multiprocessing, sys
import relay_mp
from relay_mp import ScopeType, pools, scope, subscribers

seen = []
def look(event):
    seen.append(event.name)

kind, directory = sys.argv[1:]
if kind == "lambda":
    subscribers.register("name", lambda event: seen.append(event.name))
elif kind == "function":
    subscribers.register("name", look)
elif kind == "method":
    subscribers.register("name", seen.append)
elif kind == "trajectory":
    exporter = relay_mp.AtifExporter("id", "agent", "1")
    exporter.register("name")
else:
    config = relay_mp.AtofExporterConfig()
    config.output_directory, config.filename = directory, "events.jsonl"
    config.mode = relay_mp.AtofExporterMode.Overwrite
    exporter = relay_mp.AtofExporter(config)
    exporter.register("name")

def work(number):
    with scope.scope(f"work {number}", ScopeType.Tool):
        pass
    if kind == "file":
        assert exporter.deregister("name") is False  # the owner's goes on
        exporter.shutdown()
    else:
        assert subscribers.deregister("name") is False
    return number

if __name__ == "__main__":
    context = multiprocessing.get_context(START)
    with pools.ProcessPoolExecutor(2, mp_context=context) as pool:
        assert list(pool.map(work, range(6))) == list(range(6))
    subscribers.flush()
    found = len(seen)
    if kind == "trajectory":
        found = 12 if exporter.export() else 0
    if kind == "file":
        exporter.force_flush()
        found = len(open(directory + "/events.jsonl").readlines())
    assert found == 12, found
    print("whole")
"""


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
@pytest.mark.parametrize("kind", ["lambda", "function", "method", "trajectory", "file"])
def test_a_program_that_registers_as_it_is_imported_can_be_imported_by_workers(run_script, tmp_path, kind, start):
    """The worker's registration is the owner's, which the worker cannot end."""
    program = tmp_path / "program.py"
    program.write_text(REGISTERS.replace("START", repr(start)))
    ran = run_script(RUN, program, kind, tmp_path)
    assert ran.stdout == "whole\n"
    assert "already registered" not in ran.stderr


ANOTHER = """
import multiprocessing, relay_mp
from relay_mp import subscribers

def one(event): pass
def other(event): pass

def work(answers):
    import named_subscribers
    for callback in (other, lambda event: None, "named_subscribers:Lines"):
        try:
            subscribers.register("name", callback)
        except relay_mp.SubscriberError as error:
            answers.put(str(error))
        else:
            answers.put("was taken")

if __name__ == "__main__":
    answers = multiprocessing.SimpleQueue()
    with relay_mp.session():
        subscribers.register("name", one)
        process = multiprocessing.get_context("fork").Process(target=work, args=(answers,))
        process.start()
        for _ in range(3):
            print(answers.get())
        process.join()
"""


def test_another_of_the_same_name_is_an_error_that_says_that_this_is_a_worker(run_script):
    lines = run_script(ANOTHER).stdout.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert "'name' is already registered globally, as '__main__:one'" in line
        assert "This process is a worker" in line
        assert 'if __name__ == "__main__":' in line


NO_GUARD = """
import multiprocessing, relay_mp
context = multiprocessing.get_context("spawn")
def work(): pass
relay_mp.session()
process = context.Process(target=work)
process.start()
process.join()
print(process.exitcode)
"""


def test_a_main_program_without_a_guard_is_told_of_the_guard(run_script, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(NO_GUARD)
    ran = run_script(RUN, program)
    assert ran.stdout == "1\n"
    assert 'Start the session there under `if __name__ == "__main__":`' in ran.stderr


SECOND = """
import importlib, sys
import relay_mp
from relay_mp import scope, subscribers

def work(): scope.event("mark")

if __name__ == "__main__":
    context = importlib.import_module(sys.argv[1]).get_context("forkserver")
    for _ in range(2):
        seen = []
        with relay_mp.session():
            subscribers.register("seen", lambda event: seen.append(event.name))
            process = context.Process(target=work)
            process.start()
            process.join()
            subscribers.flush()
        print(seen)
    importlib.import_module(sys.argv[1] + ".forkserver")._forkserver._stop() if sys.argv[1] != "billiard" else None
"""


@pytest.mark.parametrize("family", ["multiprocessing", "multiprocess", "billiard"])
def test_a_running_forkservers_children_are_in_the_present_session(run_script, needs, tmp_path, family):
    needs(family)
    program = tmp_path / "program.py"
    program.write_text(SECOND)
    ran = run_script(RUN, program, family)
    assert ran.stdout == "['mark']\n['mark']\n"
