"""The command `relay-mp`, and `python -m relay_mp`: a command a file.

    main ──▶ the command that is named: add_arguments(parser), run(arguments, terminal) ──▶ its exit code
      │                                            │
      └── errors in one line: exits                └── terminal, table, units, progress: what it looks like

Only the command that is called is loaded. What a command knows of files is in `relay_mp._runs`, of sessions in
`relay_mp`; here is how it is asked for, and shown.
"""
