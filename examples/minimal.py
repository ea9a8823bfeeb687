"""The smallest run: one scope, two marks, one subscriber; it prints four lines."""

import relay_mp


def log_event(event: relay_mp.ScopeEvent | relay_mp.MarkEvent) -> None:
    print(f"{event.kind} {event.name}")


relay_mp.subscribers.register("scope-check", log_event)

try:
    with relay_mp.scope.scope(
        "agent-run",
        relay_mp.ScopeType.Agent,
        input={"request_id": "req-123"},
    ) as handle:
        relay_mp.scope.event("planning-started", handle=handle, data={"step": 1})
        relay_mp.scope.event("planning-finished", handle=handle, data={"step": 2})
finally:
    relay_mp.subscribers.flush()
    relay_mp.subscribers.deregister("scope-check")
