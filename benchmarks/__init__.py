"""The benchmark suite: what users of the library choose it by, beside its floor and its peers.

    python -m benchmarks            everything, under ten minutes on two cores; or: tox -e bench
    python -m benchmarks --smoke    every part, as small as it can be: what CI runs

Data flows one way:

    floor emit load delivered exporters growth managed recovery program
                  the parts: each says which sides it compares, and returns rows
        -> harness          a part's rows and ratios
        -> relay_mp._bench  runs the sides in turn; `relay-mp bench` uses it too: sides, fleet, loops, histogram, peers
    peers, payloads     those that only the suite compares with, and that only it emits
    needs               what has to be installed, asked for before anything is measured
    native              the C half: the ring without Python, a writer that dies within a claim
    results             rows -> latest.json;  targets -> the table;  pictures -> SVG;  published -> the docs

A part that fails costs itself: what it had measured and all other parts are kept and written, with what failed beside
its rows, and the command ends with 1.

A row is one side of one group: {"group", "side", figures, "ratio" to the group's first side}. Nothing here asserts
on a time. `callgrind` counts the instructions of the emit path, which CI can judge (tests/test_benchmarks.py).
"""
