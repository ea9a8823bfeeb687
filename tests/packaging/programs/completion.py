"""Asks the command line as a shell does that completes `relay-mp summ`. For the extra `completion` alone."""

import os
import subprocess
import sys
import tempfile

line = "relay-mp summ"
with tempfile.TemporaryDirectory() as directory:
    answer = os.path.join(directory, "answer")
    asked = {
        "_ARGCOMPLETE": "1",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "_ARGCOMPLETE_STDOUT_FILENAME": answer,
    }
    subprocess.run([sys.executable, "-m", "relay_mp"], env={**os.environ, **asked}, check=True, timeout=60)
    with open(answer, encoding="utf-8") as file:
        print(*file.read().split("\v"))
