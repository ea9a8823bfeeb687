"""Runs programs against one package and prints what came of them: `python driver.py PACKAGE < programs > results`.

The same file runs in both interpreters. A program is a list of steps (see programs.py); its result is the
normalised event stream, each step's outcome, and what the callbacks were given.

With two more arguments, a start method and what is to run in a pool of that kind, work goes to a worker:

    bodies  of tools and providers; what they emit meets the middleware of the owner
    calls   each step but registrations, and the scopes around them: guardrails, intercepts, sanitizers and
            injectors run in the worker

The owner registers all middleware, by name with JSON arguments; the worker has no code of its own for it.
"""

import asyncio
import importlib
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import callbacks

FAMILIES = [
    "event_metadata_injector", "mark_sanitize", "scope_sanitize_start", "scope_sanitize_end",
    "tool_sanitize_request", "tool_sanitize_response", "tool_conditional_execution", "tool_request", "tool_execution",
    "llm_sanitize_request", "llm_sanitize_response", "llm_conditional_execution", "llm_request", "llm_execution",
    "llm_stream_execution",
]  # fmt: skip

BUILTIN = (RuntimeError, ValueError, TypeError, OverflowError)


# ------------------------------------------------------------------------------------------ normalising


def normal_text(text):  # noqa: PLR0911
    """A failure's text with what both packages agree on; the rest of the wording is each package's own.

    The peer wraps what a callback raises once at each level, and says so in the text; here it passes as it is.
    """
    text = re.sub(r"^(internal error: (\w+Error: )?)+", "", text)
    text = re.sub(r"^(\w+\.)*\w+Error: ", "", text)  # as a guardrail's end has it
    if rejected := re.search(r"(guardrail rejected: |guardrail '.*?' rejected the call: )(.*)$", text):
        return f"rejected: {rejected[2]}"
    if text.startswith("invalid argument"):
        return "invalid argument"
    if "Failed to convert to JSON" in text or "unsupported type" in text:
        return "no payload"
    if "already exists" in text or "already registered" in text:
        return "taken"
    if "cancelled" in text:
        return "cancelled"
    if "dropped before" in text or "closed before" in text:
        return "interrupted"
    return "wrong return type" if "returned" in text or "must return" in text else text


def normal_error(error):
    if type(error).__name__ == "PayloadError" or isinstance(error, LookupError | OSError):
        # Raised by a callback, or for what it returned: the peer's RuntimeError has the text in it.
        return ["raised", "RuntimeError", normal_text(str(error))]
    if getattr(error, "error_type", None) == "invalid_argument":
        return ["raised", "RuntimeError", "invalid argument"]
    kind = next((builtin.__name__ for builtin in BUILTIN if isinstance(error, builtin)), type(error).__name__)
    return ["raised", kind, normal_text(str(error)) if kind == "RuntimeError" else ""]


def normal_metadata(metadata):
    if not isinstance(metadata, dict):
        return metadata
    metadata = {key.replace("nemo_relay.", "relay_mp."): value for key, value in metadata.items()}
    text = metadata.get("otel.status_description")
    if isinstance(text, str):
        text = metadata["otel.status_description"] = normal_text(text)
        # Here `error.type` is the class of what was raised, and more is told of it, of blocks too.
        kind = metadata.pop("error.type", None)
        for key in ("exception.type", "exception.message", "exception.stacktrace"):
            metadata.pop(key, None)
        if kind == "invalid_argument":
            metadata["otel.status_description"] = "invalid argument"
    return metadata


def normal_data(data):
    if isinstance(data, dict):
        if isinstance(data.get("headers"), dict):
            data = {**data, "headers": callbacks.shown_headers(data["headers"])}
        if isinstance(data.get("error"), str):
            data = {**data, "error": normal_text(data["error"])}
        return {key: normal_data(value) for key, value in data.items()}
    return [normal_data(item) for item in data] if isinstance(data, list) else data


def normal_log(value):
    if isinstance(value, list):
        return [normal_log(item) for item in value]
    return normal_data(normal_metadata(value))


class Stream:
    """Events in order; uuids by first appearance, and a parent that has no event is the root."""

    def __init__(self):
        self.events = []

    def __call__(self, event):
        self.events.append(event.to_dict())

    def below_calls(self):
        """What runs inside a managed call is its child here, and its sibling in the peer; all else stays."""
        parents = {event["uuid"]: event["parent_uuid"] for event in self.events}
        running = set()
        for event in self.events:
            if event.get("scope_category") == "end":
                running.discard(event["uuid"])
            while event["parent_uuid"] in running and event["name"] != "llm.chunk":
                event["parent_uuid"] = parents[event["parent_uuid"]]
            if event.get("scope_category") == "start" and event["category"] in ("tool", "llm"):
                running.add(event["uuid"])

    def normal(self):
        self.below_calls()
        known = {event["uuid"] for event in self.events}
        numbers = {}
        return [self._normal(event, known, numbers) for event in self.events]

    def _normal(self, event, known, numbers):
        number = numbers.setdefault(event["uuid"], len(numbers))
        parent = numbers.setdefault(event["parent_uuid"], len(numbers)) if event["parent_uuid"] in known else "root"
        kept = {key: value for key, value in event.items() if key not in ("timestamp", "uuid", "parent_uuid")}
        schema = kept.get("data_schema")
        if schema:
            kept["data_schema"] = {**schema, "name": schema["name"].replace("nemo.relay.", "relay_mp.")}
        kept.update(
            uuid=number, parent=parent, metadata=normal_metadata(kept["metadata"]), data=normal_data(kept["data"])
        )
        return kept


# --------------------------------------------------------------------------------- bodies of the calls


def body(package, behaviour, value):
    """What a tool or provider does; runs in the process itself, or in a worker."""
    if behaviour == "raise":
        raise KeyError("from the body")
    if behaviour == "emit":
        package.scope.event("in body", data={"v": 1})
        with package.scope.scope("scope in body", package.ScopeType.Function, input=1):
            package.scope.event("deep in body")
    return value


def in_worker(package_name, function, *arguments):
    """Runs in a worker: what came of it, or the failure, and what its callbacks were given."""
    callbacks.drain()  # a fork has its parent's
    try:
        result, failure = function(importlib.import_module(package_name), *arguments), None
    except Exception as error:
        result, failure = None, error
    return result, failure, callbacks.drain()


def step_in_worker(package, step, scopes):
    run = Run(package)
    asyncio.run(run.steps([step], scopes))
    return run.outcomes


def register_in_a_call(handle):
    """In a worker, within a tool: registers on the owner's scope, which fails, and globally; then emits a mark."""
    import relay_mp

    def tool(args):
        try:
            relay_mp.scope_local.register_mark_sanitize(handle, "refused", 1, lambda event, fields: None)
            refused = None
        except RuntimeError as error:
            refused = type(error).__name__
        by_worker = lambda event, fields: {**fields, "data": "by the worker"}  # noqa: E731
        relay_mp.guardrails.register_mark_sanitize("the worker's", 1, by_worker)
        relay_mp.scope.event("m", data="the worker's")
        return relay_mp.ToolExecutionResult(refused)

    callbacks.drain()
    return asyncio.run(relay_mp.tools.execute("tool", None, tool)).result, callbacks.drain()


REGISTRATIONS = ("register", "deregister", "subscriber")


def is_the_owners(step):
    """Registrations are made by the process that pushed the scope they are on."""
    verb, *arguments = step
    return verb in REGISTRATIONS or (verb == "scope" and any(map(is_the_owners, arguments[-1])))


class Run:
    """One program in one package. `in_pool` is what runs in the pool: "bodies" or "calls"."""

    def __init__(self, package, pool=None, in_pool=None):
        self.package = package
        self.is_peer = package.__name__ == "nemo_relay"
        self.pool = pool
        self.in_pool = in_pool
        self.log = callbacks.LOG
        self.outcomes = []
        self.called_in_worker = set()
        self.registered = []
        self.subscribers = []
        self.stream = Stream()

    async def program(self, steps):
        self.package.subscribers.register("stream", self.stream)
        try:
            await self.steps(steps, [])
        finally:
            for module, family, name in self.registered:
                getattr(module, f"deregister_{family}")(name)
            await self.package.subscribers.flush_async()
            for name in ["stream", *self.subscribers]:
                self.package.subscribers.deregister(name)
        log = {family: normal_log(calls) for family, calls in callbacks.drain().items()}
        found = {"events": self.stream.normal(), "outcomes": self.outcomes, "log": log}
        return {**found, "called_in_worker": sorted(self.called_in_worker.intersection(FAMILIES))}

    async def steps(self, steps, scopes):
        for step in steps:
            if self.in_pool == "calls" and not is_the_owners(step):
                self.outcomes += await self.submit(step_in_worker, step, scopes)
                continue
            verb, *arguments = step
            try:
                found = await getattr(self, verb)(scopes, *arguments)
                self.outcomes.append([verb, callbacks.canonical(found)])
            except Exception as error:
                self.outcomes.append([verb, *normal_error(error)])
            if self.is_peer:
                # It runs sanitizers and publishes behind its caller's back: what comes next would race them.
                await self.package.subscribers.flush_async()

    async def run_body(self, behaviour, value):
        if self.in_pool == "bodies":
            return await self.submit(body, behaviour, value)
        return body(self.package, behaviour, value)

    async def submit(self, function, *arguments):
        loop = asyncio.get_running_loop()
        name = self.package.__name__
        result, failure, taken = await loop.run_in_executor(self.pool, in_worker, name, function, *arguments)
        callbacks.note(taken)
        self.called_in_worker.update(taken)
        if failure is not None:
            raise failure
        return result

    def options(self, options):
        known = dict(options)
        if "tool_bits" in known:
            known["attributes"] = self.package.ToolAttributes(known.pop("tool_bits"))
        if "llm_bits" in known:
            known["attributes"] = self.package.LLMAttributes(known.pop("llm_bits"))
        return known

    # ---- scopes, marks, subscribers

    async def scope(self, scopes, name, kind, options, inner):
        with self.package.scope.scope(name, getattr(self.package.ScopeType, kind), **options) as handle:
            await self.steps(inner, [*scopes, handle])

    async def broken(self, scopes, name, text):
        with self.package.scope.scope(name, self.package.ScopeType.Agent):
            raise RuntimeError(text)

    async def mark(self, scopes, name, options, up):
        if up is not None and scopes:
            options = {**options, "handle": scopes[up % len(scopes)]}
        self.package.scope.event(name, **options)

    async def subscriber(self, scopes, name, scope):
        # What it sees is told by the counts in the log.
        calls = self.log.setdefault(f"subscriber {name}", [])
        if scope is None or not scopes:
            self.package.subscribers.register(name, lambda event: calls.append(event.name))
            self.subscribers.append(name)
        else:
            handle = scopes[scope % len(scopes)]
            self.package.scope_local.register_subscriber(handle, name, lambda event: calls.append(event.name))

    # ---- middleware

    async def register(self, scopes, family, name, priority, behaviour, scope, break_chain):
        chain = [break_chain] if break_chain is not None else []
        callback, by_name = self.callback(family, name, behaviour)
        if scope is not None and scopes:
            register = getattr(self.package.scope_local, f"register_{family}")
            register(scopes[scope % len(scopes)], name, priority, *chain, callback, **by_name)
            return
        module, verb = self.module(family)
        getattr(module, f"register_{verb}")(name, priority, *chain, callback, **by_name)
        self.registered.append((module, verb, name))

    def callback(self, family, name, behaviour):
        if self.pool is None:
            return callbacks.make(self.package, family, name, behaviour, self.log), {}
        spec = {"package": self.package.__name__, "family": family, "name": name, "behaviour": behaviour}
        return "callbacks:named", {"arguments": spec}

    async def deregister(self, scopes, family, name):
        module, verb = self.module(family)
        return getattr(module, f"deregister_{verb}")(name)

    def module(self, family):
        if family == "event_metadata_injector":
            return self.package.event_metadata, "injector"
        is_guardrail = "sanitize" in family or "conditional" in family
        return (self.package.guardrails if is_guardrail else self.package.intercepts), family

    # ---- tools

    async def tool_manual(self, scopes, name, args, result, annotation, options, end_options):
        handle = self.package.tools.call(name, args, **self.options(options))
        self.package.tools.call_end(handle, self.package.ToolExecutionResult(result, annotation), **end_options)

    async def tool(self, scopes, name, args, behaviour, annotation, options):
        tool_body = self.tool_body(behaviour, annotation)
        result = await self.package.tools.execute(name, args, tool_body, **self.options(options))
        return [result.result, result.annotation]

    def tool_body(self, behaviour, annotation):
        package = self.package

        async def run(args):
            if behaviour == "plain":
                return {"no": "result"}
            if behaviour == "rejected inside":
                return await package.tools.execute("inner", args, package.ToolExecutionResult)
            return package.ToolExecutionResult({"got": await self.run_body(behaviour, args)}, annotation)

        return run

    async def tool_helper(self, scopes, verb, name, args):
        return await getattr(self.package.tools, verb)(name, args)

    # ---- LLMs

    async def llm_manual(self, scopes, name, headers, content, response, options, end_options):
        request = self.package.LLMRequest(headers, content)
        handle = self.package.llm.call(name, request, **self.options(options))
        self.package.llm.call_end(handle, response, **end_options)

    async def llm(self, scopes, name, headers, content, behaviour, options):
        async def provider(request):
            self.log.setdefault("provider", []).append(callbacks.shown_request(request))
            return {"got": await self.run_body(behaviour, request.content)}

        return await self.package.llm.execute(
            name, self.package.LLMRequest(headers, content), provider, **self.options(options)
        )

    async def stream_llm(self, scopes, name, headers, content, chunks, behaviour, consume, options):
        collected = self.log.setdefault("collected", [])
        mine = []

        async def provider(request):
            self.log.setdefault("provider", []).append(callbacks.shown_request(request))
            for index, chunk in enumerate(chunks):
                if consume is not None and index == consume:
                    await asyncio.Event().wait()  # not read ahead of what the consumer takes
                if behaviour == "raise" and index == len(chunks) - 1:
                    raise KeyError("from the stream")
                yield await self.run_body(behaviour, chunk)

        def collector(chunk):
            if behaviour == "collector":
                raise OSError("from the collector")
            mine.append(chunk)
            collected.append(callbacks.canonical(chunk))

        def finalizer():
            if behaviour == "finalizer":
                raise OSError("from the finalizer")
            return {"chunks": len(mine)}

        request = self.package.LLMRequest(headers, content)
        stream = await self.package.llm.stream_execute(
            name, request, provider, collector, finalizer, **self.options(options)
        )
        seen = []
        async for chunk in stream:
            seen.append(chunk)
            if len(seen) == consume:
                await stream.aclose()
                break
        return seen

    async def llm_helper(self, scopes, verb, name, headers, content):
        request = self.package.LLMRequest(headers, content)
        if verb == "conditional_execution":
            return await self.package.llm.conditional_execution(request)
        outcome = await self.package.llm.request_intercepts(name, request)
        return [callbacks.shown_request(outcome.request), [mark.name for mark in outcome.pending_marks]]


async def run_all(package, programs, *in_workers):
    return [await Run(package, *in_workers).program(program) for program in programs]


def main():
    package = importlib.import_module(sys.argv[1])
    programs = json.load(sys.stdin)
    if len(sys.argv) < 3:
        results = asyncio.run(run_all(package, programs))
    else:
        results = run_in_workers(package, programs, *sys.argv[2:])
    json.dump(results, sys.stdout)


def run_in_workers(package, programs, start_method, what):
    import multiprocessing

    with package.session():
        context = multiprocessing.get_context(start_method)
        with package.pools.ProcessPoolExecutor(1, mp_context=context) as pool:
            return asyncio.run(run_all(package, programs, pool, what))


if __name__ == "__main__":
    main()
