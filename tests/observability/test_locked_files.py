"""Files that one process writes: what each kind of them does when others touch the file."""

import os
import resource
import signal

import pytest

from relay_mp._deliver.jsonl import JsonlFile
from relay_mp.observability.perfetto.trace_file import TraceFile


class Lines:
    def __init__(self, path):
        self.file = JsonlFile(str(path))
        self.close = self.file.close

    def write(self, number):
        self.file.write(b'{"n":%d}\n' % number, 1)


class Trace:
    def __init__(self, path):
        self.file = TraceFile(str(path), "session", "new")
        self.close = self.file.close

    def write(self, number):
        self.file.write(f'{{"n":{number}}}\n')


@pytest.mark.parametrize("kind", [Lines, Trace])
def test_a_file_that_is_emptied_by_somebody_ends_whole_after_a_full_disk(kind, tmp_path):
    """As logrotate's `copytruncate` empties it; then a line is written in part."""
    path = tmp_path / "file"
    file = kind(path)
    for _ in range(100):
        file.write(1)
    os.truncate(path, 0)
    file.write(2)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12, before[1]))
    try:
        with pytest.raises(OSError, match="no room"):
            file.write(3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
        file.close()
    assert path.read_bytes() == b'{"n":2}\n'


@pytest.mark.parametrize("kind", [Lines, Trace])
def test_a_device_is_written_to_and_not_locked(kind, tmp_path):
    link = tmp_path / "null"
    link.symlink_to(os.devnull)
    one, two = kind(link), kind(link)
    one.write(1)
    two.write(2)
    one.close()
    two.close()
    assert os.listdir(tmp_path) == ["null"]
