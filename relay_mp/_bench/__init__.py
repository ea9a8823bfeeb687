"""What measures emit latency under load: the harness of `relay-mp bench`, and of the suite in `benchmarks/`.

Data flows one way:

    peers         the library and what it is compared with, behind one interface; payloads: what their events carry
        -> loops      a statement, timed call by call or as a whole
        -> fleet      many producers of one peer, in processes or threads, paced or flat out, and their consumer
        -> sides      each peer's fleet in a process of its own; they take turns
        -> histogram  what came of it
        -> load       a load of the caller's choice, and the document that it gives; machine: what it ran on
        -> picture    that document as SVG
    children          the processes that a side forks, and what goes wrong with a side

Nothing here is loaded by a program that only emits.
"""
