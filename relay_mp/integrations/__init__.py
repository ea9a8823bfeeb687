"""Hosts and libraries of agents that need more than the library's core: one module each, imported by who uses it.

    asgi, wsgi   a scope for each request, under the caller's `traceparent`
    celery       a task's scopes stand under its publisher's
    dask, ray    a task's, and an actor's, scopes stand under its submitter's
    logging      records of the standard library's logging become marks
    openai       calls of the `openai` client, with tokens and cost

Nothing here is imported by `import relay_mp`. What other hosts need is in docs/guides/hosts.md.
"""

__all__: list[str] = []
