"""A program of many agents in many processes, and the trees that it and its exports are."""

import asyncio
import json

from relay_mp import ScopeType, pools, scope

AGENTS_AT_ONCE = 20
EVENTS_PER_AGENT = 14


async def agent(number):
    """One agent; other agents of the thread go on whenever it waits."""
    with scope.scope(f"agent {number}", ScopeType.Agent, input=number, metadata={"number": number}):
        with scope.scope("ask", ScopeType.Llm, input={"messages": [{"role": "user", "content": f"{number}?"}]}) as call:
            await asyncio.sleep(0)
        scope.event("asked", handle=call, data=number)
        with scope.scope("look up", ScopeType.Tool, input={"number": number}):
            await asyncio.sleep(0)
        with scope.scope("step", ScopeType.Function):
            await asyncio.sleep(0)
            scope.event("stepped", data=number)
            with scope.scope(f"helper {number}", ScopeType.Agent), scope.scope("ask", ScopeType.Llm):
                await asyncio.sleep(0)


async def agents(first, count):
    for begin in range(first, first + count, AGENTS_AT_ONCE):
        await asyncio.gather(*(agent(number) for number in range(begin, min(begin + AGENTS_AT_ONCE, first + count))))


def work(first, count):
    """The whole of a process."""
    asyncio.run(agents(first, count))


def run(processes, agents_each):
    """All of them at once, under one scope."""
    with scope.scope("run", ScopeType.Function):
        workers = [pools.Process(target=work, args=(n * agents_each, agents_each)) for n in range(processes)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert all(worker.exitcode == 0 for worker in workers)


def nodes_of_lines(lines):
    """By uuid: (name, parent, category) of every scope and mark in ATOF lines; category None for marks."""
    nodes = {}
    for event in map(json.loads, lines):
        if event.get("scope_category") != "end":
            nodes[event["uuid"]] = (event["name"], event["parent_uuid"], event["category"])
    return nodes


def nodes_of_trajectory(trajectory):
    """The same, of an ATIF trajectory and those in it. Names of LLM calls and tools are those of their ancestry."""
    nodes = {}

    def add(ancestry, category):
        nodes[ancestry["function_id"]] = (ancestry["function_name"], ancestry.get("parent_id"), category)

    add(trajectory["extra"]["ancestry"], "agent")
    for event in trajectory["extra"].get("observed_events", ()):
        if event.get("scope_category") != "end":
            nodes[event["uuid"]] = (event["name"], event["parent_uuid"], event["category"])
    for step in trajectory["steps"]:
        if step.get("llm_call_count"):
            add(step["extra"]["ancestry"], "llm")
        for call in step.get("tool_calls", ()):
            if "ancestry" in call["extra"]:
                add(call["extra"]["ancestry"], "tool")
    for subagent in trajectory.get("subagent_trajectories", ()):
        nodes |= nodes_of_trajectory(subagent)
    return nodes


def nodes_of_trace(events):
    """The same, of a Chrome trace."""
    nodes = {}
    for event in events:
        if event["ph"] in "Xbi":
            category = None if event["cat"] == "mark" else event["cat"]
            nodes[event["args"]["uuid"]] = (event["name"], event["args"]["parent_uuid"], category)
    return nodes
