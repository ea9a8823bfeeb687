"""Callbacks of the differential test: each family's behaviours, written once for both packages.

`make(package, family, name, behaviour, log)` gives the callback; it notes each call in `log[family]`. A
behaviour that ends in `_async` is the same as a coroutine.

`named` makes one from JSON, in whichever process calls it first: what is registered by name crosses processes.
"""

import contextlib
import importlib
import inspect

LOG: dict = {}
"""This process's calls of what `named` made; whoever gives work to a worker takes them from it."""


def drain():
    """The calls so far, which are then forgotten. Callbacks keep the lists that they append to."""
    taken = {family: list(calls) for family, calls in LOG.items() if calls}
    for calls in LOG.values():
        calls.clear()
    return taken


def note(taken):
    """Adds what a worker has drained."""
    for family, calls in taken.items():
        LOG.setdefault(family, []).extend(calls)


def canonical(value):
    """JSON as both sides show it: tuples are lists, keys sorted, what is none a marker."""
    if isinstance(value, dict):
        return {key: canonical(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return f"<{type(value).__name__}>"


def shown_headers(headers):
    """What both packages agree on: that there is one traceparent, and no header of one vendor's scheduler."""
    kept = {key: value for key, value in headers.items() if not key.startswith("x-dynamo-")}
    is_trace = {key: key.lower() == "traceparent" and value.startswith("00-") for key, value in kept.items()}
    return {key: "<trace>" if is_trace[key] else value for key, value in kept.items()}


def shown_request(request):
    return canonical({"headers": shown_headers(request.headers), "content": request.content})


def _tagged(value, name):
    return {**value, name: 1} if isinstance(value, dict) else [name, value]


def _raise(name):
    raise LookupError(f"by {name}")


def _mutated(value):
    if isinstance(value, dict):
        value["mutated"] = 1
    return value


def payload_behaviours(name):
    """For sanitizers and request intercepts of tools: from a payload to a payload."""
    return {
        "tag": lambda value: _tagged(value, name),
        "same": lambda value: value,
        "none": lambda value: None,
        "number": lambda value: 3,
        "object": lambda value: object(),
        "raise": lambda value: _raise(name),
        "mutate": _mutated,
    }


def verdicts(package, name):
    return {
        "allow": lambda: None,
        "reject": lambda: f"no from {name}",
        "raise": lambda: _raise(name),
        "number": lambda: 3,
        "emit": lambda: package.scope.event(f"from {name}", data=1),
    }


def field_behaviours(name):
    return {
        "tag": lambda fields: {**fields, "data": {"by": name, "was": fields["data"]}},
        "same": lambda fields: fields,
        "none": lambda fields: None,
        "partial": lambda fields: {"data": name},
        "list": lambda fields: [1],
        "raise": lambda fields: _raise(name),
        "profile": lambda fields: {**fields, "category_profile": {"by": name}},
        "object": lambda fields: {**fields, "metadata": object()},
        "extra": lambda fields: {**fields, "extra": 1},
    }


def additions(name):
    return {
        "tag": lambda: {name: 1, "shared": name},
        "kept": lambda: {"kept": "injected"},
        "list": lambda: {f"{name}.list": [1, 2.5], "flag": True},
        "nested": lambda: {name: {"a": 1}},
        "mixed": lambda: {name: [1, "a"]},
        "key": lambda: {"not a key": 1},
        "none": lambda: None,
        "empty": lambda: {},
        "raise": lambda: _raise(name),
    }


def _outcome(package, result, marks=()):
    pending = [package.PendingMarkSpec(mark, data={"n": 1}) for mark in marks]
    return package.ToolExecutionInterceptOutcome(result, pending)


def tool_executions(package, name):
    async def wrap(tool, args, next_call):
        result = await next_call(_tagged(args, name))
        return package.ToolExecutionInterceptOutcome({name: result.result}, annotation=result.annotation)

    async def short(tool, args, next_call):
        return _outcome(package, {"short": name})

    async def marks(tool, args, next_call):
        return _outcome(package, (await next_call(args)).result, [f"{name} 1", f"{name} 2"])

    async def twice(tool, args, next_call):
        return _outcome(package, [(await next_call(args)).result, (await next_call([args])).result])

    async def catch(tool, args, next_call):
        try:
            return _outcome(package, (await next_call(args)).result)
        except Exception:
            return _outcome(package, "caught")

    async def around(tool, args, next_call):
        package.scope.event(f"before {name}")
        with package.scope.scope(f"in {name}", package.ScopeType.Function):
            result = await next_call(args)
        return _outcome(package, result.result)

    async def plain(tool, args, next_call):
        return {"not": "an outcome"}

    async def failing(tool, args, next_call):
        await next_call(args)
        _raise(name)

    return {
        "wrap": wrap, "short": short, "marks": marks, "twice": twice, "catch": catch, "around": around,
        "plain": plain, "raise": failing,
    }  # fmt: skip


def llm_executions(package, name):
    async def wrap(provider, request, next_call):
        changed = package.LLMRequest({**request.headers, name: "1"}, request.content)
        return {name: await next_call(changed)}

    async def short(provider, request, next_call):
        return {"short": name}

    async def twice(provider, request, next_call):
        return [await next_call(request), await next_call(request)]

    async def catch(provider, request, next_call):
        try:
            return await next_call(request)
        except Exception:
            return "caught"

    async def failing(provider, request, next_call):
        await next_call(request)
        _raise(name)

    return {"wrap": wrap, "short": short, "twice": twice, "catch": catch, "raise": failing}


def stream_executions(package, name):
    async def wrap(request, next_call):
        async for chunk in await next_call(request):
            yield {name: chunk}

    async def delegate(request, next_call):
        return await next_call(request)

    async def short(request, next_call):
        yield {"short": name}

    async def failing(request, next_call):
        _raise(name)

    async def middle(request, next_call):
        yield {"first": name}
        _raise(name)

    async def twice(request, next_call):
        for _ in range(2):
            async for chunk in await next_call(request):
                yield chunk

    return {"wrap": wrap, "delegate": delegate, "short": short, "raise": failing, "middle": middle, "twice": twice}


def request_changes(package, name):
    def outcome(request, annotated, marks=()):
        return package.LLMRequestInterceptOutcome(request, annotated, [package.PendingMarkSpec(mark) for mark in marks])

    def tagged(request):
        return package.LLMRequest({**request.headers, name: "1"}, _tagged(request.content, name))

    return {
        "tag": lambda request, annotated: outcome(tagged(request), annotated),
        "same": outcome,
        "marks": lambda request, annotated: outcome(request, annotated, [f"{name} 1", f"{name} 2"]),
        "credentials": lambda request, annotated: outcome(
            package.LLMRequest({**request.headers, "Authorization": "secret"}, request.content), annotated
        ),
        "none": lambda request, annotated: None,
        "plain": lambda request, annotated: request,
        "raise": lambda request, annotated: _raise(name),
    }


def request_views(package, name):
    return {
        "tag": lambda request: package.LLMRequest({**request.headers, name: "1"}, _tagged(request.content, name)),
        "same": lambda request: request,
        "none": lambda request: None,
        "plain": lambda request: {"not": "a request"},
        "raise": lambda request: _raise(name),
    }


def named(package, family, name, behaviour):
    """The callback, by names alone."""
    return make(importlib.import_module(package), family, name, behaviour, LOG)


def make(package, family, name, behaviour, log):
    """The callback; see the module."""
    calls = log.setdefault(family, [])
    is_async = behaviour.endswith("_async")
    callback = _plain(package, family, name, behaviour.removesuffix("_async"), calls)
    if not is_async or inspect.iscoroutinefunction(callback) or inspect.isasyncgenfunction(callback):
        return callback
    parameters = len(inspect.signature(callback).parameters)

    async def one(a):
        return callback(a)

    async def two(a, b):
        return callback(a, b)

    async def three(a, b, c):
        return callback(a, b, c)

    return (one, two, three)[parameters - 1]


def _shown(value):
    return shown_request(value) if hasattr(value, "headers") else canonical(value)


def _noted(execution, note):
    """The same, noting what it is given: a coroutine function stays one, and an async generator function."""

    async def of_name(name, value, next_call):
        note(value)
        return await execution(name, value, next_call)

    async def of_stream(request, next_call):
        note(request)
        return await execution(request, next_call)

    async def stream(request, next_call):
        note(request)
        async with contextlib.aclosing(execution(request, next_call)) as chunks:
            async for chunk in chunks:
                yield chunk

    if inspect.isasyncgenfunction(execution):
        return stream
    return of_stream if len(inspect.signature(execution).parameters) == 2 else of_name


def _plain(package, family, name, behaviour, calls):  # noqa: PLR0911
    if family in ("tool_sanitize_request", "tool_sanitize_response", "tool_request"):
        change = payload_behaviours(name)[behaviour]

        def payload(tool, value):
            calls.append([name, tool, canonical(value)])
            return change(value)

        return payload
    if family == "tool_conditional_execution":
        verdict = verdicts(package, name)[behaviour]

        def tool_verdict(tool, args):
            calls.append([name, tool, canonical(args)])
            return verdict()

        return tool_verdict
    if family == "llm_conditional_execution":
        verdict = verdicts(package, name)[behaviour]

        def llm_verdict(request):
            calls.append([name, shown_request(request)])
            return verdict()

        return llm_verdict
    if family == "llm_sanitize_response":
        response_change = payload_behaviours(name)[behaviour]

        def response(value, context):
            calls.append([name, canonical(value), context.codec.kind])
            return response_change(value)

        return response
    if family == "llm_sanitize_request":
        view = request_views(package, name)[behaviour]

        def request_view(request, context):
            calls.append([name, shown_request(request), context.codec.kind])
            return view(request)

        return request_view
    if family == "llm_request":
        request_change = request_changes(package, name)[behaviour]

        def request_intercept(provider, request, annotated):
            calls.append([name, provider, shown_request(request), annotated is None])
            return request_change(request, annotated)

        return request_intercept
    if family == "event_metadata_injector":
        added = additions(name)[behaviour]

        def injector(event):
            calls.append([name, event.name, canonical(event.metadata)])
            return added()

        return injector
    if family in ("mark_sanitize", "scope_sanitize_start", "scope_sanitize_end"):
        fields_change = field_behaviours(name)[behaviour]

        def fields(event, fields):
            calls.append([name, event.name, canonical(event.data)])
            return fields_change(fields)

        return fields
    executions = {
        "tool_execution": tool_executions,
        "llm_execution": llm_executions,
        "llm_stream_execution": stream_executions,
    }
    return _noted(executions[family](package, name)[behaviour], lambda value: calls.append([name, _shown(value)]))
