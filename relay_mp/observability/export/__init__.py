"""What every exporter shares, whatever its format.

base.py          what an exporter is to the program: register, deregister, force_flush, shutdown
sink.py          what it is to the stream, where the dispatcher runs
batch_queue.py   a bounded queue with a thread of its own, for what goes over a network; http.py sends
kinds.py         the table of entry points: which exporters there are
starting.py      an exporter that cannot start yet, and is tried again
"""
