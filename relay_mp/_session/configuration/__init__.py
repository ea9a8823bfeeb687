"""How the owner's middleware gets to every process of the session.

    owner                                                any other process
    registry changes ─▶ table ─▶ segment, version + 1 ─▶ its next event sees the version ─▶ registry changes

    table.py        a row for each of the owner's registrations, as bytes
    state.py        this process's part: which segment, what it has published, or what has arrived
    publishing.py   the owner: each change of the registry becomes a new version
    receiving.py    any other process: a new version becomes registrations
    arrived.py      their callbacks, imported where they are first called
    diagnostics.py  what cannot cross, and what has crossed and cannot be used

What crosses is a name, "package.module:attribute" with JSON arguments, or the plugin component that made the
registration; never a pickle. A row becomes a registration at once, and its callback is imported where it is first
called: so a new version is taken over without running anybody's code, and what cannot be imported fails as any
callback does that raises, which for sanitizers and guardrails means closed. A callback without a name (a lambda, a
closure, a bound method) has a row too: forked children have the callback itself, others are told of it once.

The owner alone writes. What another process registers is its own, and that of the children it forks.

If the table is damaged, a process keeps what it has, and withholds every payload and refuses every guarded call
until it reads a good one: what it does not know might have been a sanitizer.
"""
