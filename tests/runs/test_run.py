"""The model of a run: scopes with their parents, times, states, tokens; added up and compared."""

import pytest
from recorded import answer, error, line, scope_lines, uuid

from relay_mp._runs.reading import event_of_line
from relay_mp._runs.run import Run
from relay_mp._runs.summary import Summary, compared, percentile, with_depths


def run_of(*lines):
    return Run.of(event_of_line(each) for each in lines)


def by_name(run):
    return {scope.name: scope for root in run.roots for scope in root.walk()}


def test_a_scope_has_its_parent_its_times_and_its_emitter():
    run = run_of(
        line("start", 1, 0, name="outer", category="agent"),
        *scope_lines(2, 10, 40, name="inner", parent=1, pid=8),
        line("mark", 3, 20, parent=2),
        line("end", 1, 100, name="outer", category="agent"),
    )
    outer, inner = by_name(run).values()
    assert [root.name for root in run.roots] == ["outer"]
    assert (inner.parent, outer.children) == (outer, [inner])
    assert (outer.duration_us(run.last_us), outer.self_us(run.last_us)) == (100, 70)
    assert (inner.pid, inner.marks, inner.status) == (8, 1, "ok")
    assert (run.events, run.marks, run.pids, list(run.sessions)) == (5, 1, {7, 8}, ["1-2-3-4"])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_scopes_that_stand_under_each_other_in_a_circle_are_all_there(size):
    circle = [scope_lines(n, n, n + 10, name=f"s{n}", parent=n % size + 1) for n in range(1, size + 1)]
    below = scope_lines(9, 1, 2, name="below", parent=size)
    run = run_of(*[each for lines in (*circle, below) for each in lines])
    assert sorted(by_name(run)) == ["below", *(f"s{n}" for n in range(1, size + 1))]
    assert [root.name for root in run.roots] == ["s1"]
    assert sum(row.count for row in Summary(run).rows) == size + 1


def test_children_that_run_at_the_same_time_count_once_in_self_time():
    run = run_of(
        *scope_lines(1, 0, 100, name="outer"),
        *scope_lines(2, 10, 60, name="a", parent=1),
        *scope_lines(3, 40, 80, name="b", parent=1),
        *scope_lines(4, 50, 55, name="c", parent=1),
        *scope_lines(5, 90, 140, name="outlives", parent=1),
    )
    assert by_name(run)["outer"].self_us(run.last_us) == 100 - 70 - 10


def test_an_open_scope_lasts_until_the_last_event():
    run = run_of(line("start", 1, 10), line("mark", 2, 50))
    assert by_name(run)["work"].status == "open"
    assert by_name(run)["work"].duration_us(run.last_us) == 40


def test_an_end_without_a_start_is_a_scope_without_a_duration():
    run = run_of(line("end", 1, 10), line("mark", 2, 50))
    assert (by_name(run)["work"].status, by_name(run)["work"].duration_us(run.last_us)) == ("ok", 0)


def test_the_order_of_events_does_not_matter():
    lines = [*scope_lines(1, 0, 9, name="outer"), *scope_lines(2, 1, 5, name="llm", category="llm", parent=1,
                                                                  data=answer(3, 4))]  # fmt: skip
    runs = [Summary(run_of(*order)).to_dict(1) for order in (lines, lines[::-1])]
    assert runs[0] == runs[1]
    assert runs[0]["tokens"] == {"prompt_tokens": 3, "completion_tokens": 4}


def test_an_error_is_the_exception_in_one_line():
    run = run_of(*scope_lines(1, 0, 9, metadata=error("ValueError", "two\nlines")))
    assert (by_name(run)["work"].status, by_name(run)["work"].error) == ("error", "ValueError: two lines")


def test_a_scope_that_is_its_own_parent_is_a_root():
    assert [root.name for root in run_of(*scope_lines(1, 0, 9, parent=1)).roots] == ["work"]


def test_losses_are_those_of_the_stream_s_marks():
    run = run_of(
        line("mark", 1, 0, name="relay_mp.loss", data={"pid": 7, "lost": 3, "causes": {"full": 2, "fenced": 1}})
    )
    assert (run.lost, run.losses) == (3, {"full": 2, "fenced": 1})


def test_tokens_and_cost_of_calls_are_added_up_through_the_tree():
    run = run_of(
        line("start", 1, 0, name="agent", category="agent"),
        *scope_lines(2, 1, 2, name="gpt", category="llm", parent=1, data=answer(10, 1, 0.5)),
        *scope_lines(3, 3, 4, name="gpt", category="llm", parent=1, data=answer(20, 2, 0.25)),
    )
    total = by_name(run)["agent"].total_usage()
    assert (total.input_tokens, total.output_tokens, total.costs) == (30, 3, {"USD": 0.75})
    assert by_name(run)["gpt"].model == "gpt-test"


def test_of_nested_calls_that_describe_one_the_inner_counts():
    run = run_of(
        line("start", 1, 0, name="outer", category="llm"),
        *scope_lines(2, 1, 2, name="inner", category="llm", parent=1, data=answer(10, 1)),
        line("end", 1, 3, name="outer", category="llm", data=answer(10, 1)),
    )
    assert Summary(run).usage.tokens == {"prompt_tokens": 10, "completion_tokens": 1}


def test_the_summary_adds_up_by_category_and_name():
    lines = [each for n in range(1, 101) for each in scope_lines(n, 0, n, name="step")]
    lines += scope_lines(200, 0, 7, name="step", category="tool", metadata=error())
    summary = Summary(run_of(*lines))
    step, tool = summary.rows
    assert (step.count, step.errors, [step.percentile_us(p) for p in (50, 95, 99)]) == (100, 0, [50, 95, 99])
    assert (tool.category, tool.count, tool.errors) == ("tool", 1, 1)
    assert (summary.errors, summary.open) == (1, 0)


@pytest.mark.parametrize(("values", "expected"), [([], 0), ([3], 3), ([1, 2], 1), ([1, 2, 3], 2)])
def test_a_percentile_is_a_value_that_is_there(values, expected):
    assert percentile(values, 50) == expected


def test_a_comparison_has_what_is_in_either_and_the_largest_change_first():
    before = Summary(run_of(*scope_lines(1, 0, 10, name="same"), *scope_lines(2, 0, 50, name="gone")))
    after = Summary(run_of(*scope_lines(1, 0, 12, name="same"), *scope_lines(2, 0, 900, name="new")))
    changes = compared(before, after)
    assert [change.before.name for change in changes] == ["new", "gone", "same"]
    assert [change.self_us for change in changes] == [900, -50, 2]
    assert changes[0].to_dict()["a"] is None


def test_deep_trees_need_no_deep_stack():
    deep = 5000
    lines = [line("start", n, n, name=f"s{n}", parent=n - 1 if n > 1 else None) for n in range(1, deep + 1)]
    run = run_of(*lines)
    [root] = run.roots
    assert [depth for _, depth in with_depths(root)] == list(range(deep))
    assert len(Summary(run).to_dict(1)["longest"][0]) == deep
    assert by_name(run)["s5000"].parent_uuid == uuid(4999)
