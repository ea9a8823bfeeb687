"""Recorded runs, read back: what the commands and the view know of a file.

    files ──▶ lines (gzip, rotated sets) ──▶ reading ──▶ RecordedEvent ──▶ run: Run, Scope ──▶ summary
                                                │              │
                                                ▼              └──▶ records: events, as exporters take them
                                              BadLines

`files` finds what belongs together and opens it; `reading` makes events of lines, and counts what is not one; `calls`
tells what an LLM call used and cost; `run` is the model of a run: scopes with their parents, times, states; `summary`
adds up a run by category and name, and compares two.

Runs in the process of a command, never in one that emits. Nothing here waits for a session.
"""
