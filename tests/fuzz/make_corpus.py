"""Makes the corpus of the reader's fuzz target anew: images of real rings, and what a fuzzing session adds.

    python tests/fuzz/make_corpus.py [SECONDS]      default 300; 0: the real rings only; needs clang

What it keeps of the latter is libFuzzer's own choice of few files that together reach every edge found
(`-set_cover_merge=1`). Files named found-* are inputs that once failed: they stay.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from build import CORPUS, MOST_BYTES, build, fuzz, write_seeds


def merge(binary: Path, into: Path, found: Path) -> None:
    """Copies to `into` those of `found` that reach what `into` does not yet."""
    command = [
        str(binary), "-set_cover_merge=1", "-use_counters=0", f"-max_len={MOST_BYTES}", str(into), str(found),
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=600, cwd=found, capture_output=True)


def main(seconds: int) -> None:
    """Replaces the corpus but for what failed once."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        found, kept = place / "found", place / "kept"
        found.mkdir()
        kept.mkdir()
        write_seeds(build("main", place), kept)
        if seconds:
            fuzzer = build("fuzzer", place)
            subprocess.run(["cp", "-a", f"{kept}/.", str(found)], check=True)
            print(fuzz(fuzzer, found, seconds))
            merge(fuzzer, kept, found)
        for old in [file for file in CORPUS.iterdir() if not file.name.startswith("found-")]:
            old.unlink()
        for file in kept.iterdir():
            (CORPUS / file.name).write_bytes(file.read_bytes().rstrip(b"\0"))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
