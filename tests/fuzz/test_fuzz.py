"""The reader over hostile memory: the corpus in every run, libFuzzer in the long one.

`fuzz_reader.c` is the target, `make_corpus.py` makes the corpus anew. What a hostile image must not do
to the reader, nor a stuck loop, is in the target itself; AddressSanitizer sees what reads too far.
"""

import importlib.util
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FUZZING_SECONDS = 180
MOST_CORPUS_FILES, MOST_CORPUS_BYTES = 80, 500_000

_spec = importlib.util.spec_from_file_location("relay_mp_fuzz_build", Path(__file__).with_name("build.py"))
target = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(target)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="built and run on Linux only")


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    return target.build("main", tmp_path_factory.mktemp("fuzz"))


def test_no_image_of_the_corpus_harms_the_reader(binary):
    images = sorted(target.CORPUS.iterdir())
    assert f"{len(images)} images read" in target.read_images(binary, images)


def test_the_corpus_is_small():
    images = list(target.CORPUS.iterdir())
    assert 20 <= len(images) <= MOST_CORPUS_FILES
    assert sum(image.stat().st_size for image in images) <= MOST_CORPUS_BYTES


def test_the_corpus_has_an_image_of_each_real_ring(binary, tmp_path):
    target.write_seeds(binary, tmp_path)
    made = {image.name: image.read_bytes() for image in tmp_path.iterdir()}
    kept = {name: (target.CORPUS / name).read_bytes() for name in made if (target.CORPUS / name).exists()}
    # But for the uid in the header: else the layout has changed, and make_corpus.py has to run again.
    assert made.keys() == kept.keys()
    assert [name for name in made if len(made[name]) != len(kept[name])] == []


def test_flipped_and_cut_images_do_not_harm_the_reader(binary, tmp_path):
    randomness = random.Random(3)
    images = sorted(target.CORPUS.iterdir())
    for number in range(300):
        image = bytearray(randomness.choice(images).read_bytes())
        for _ in range(randomness.choice([1, 2, 8, 64])):
            image[randomness.randrange(len(image))] ^= 1 << randomness.randrange(8)
        (tmp_path / f"{number}").write_bytes(image[: randomness.choice([len(image), randomness.randrange(len(image))])])
    target.read_images(binary, list(tmp_path.iterdir()))


def test_the_target_notices_a_reader_that_is_not_sound(tmp_path, monkeypatch):
    """Taken out, the check of the window makes a release without end: the corpus has an image for it."""
    native = tmp_path / "_native"
    shutil.copytree(target.NATIVE, native, ignore=lambda _, names: [n for n in names if n[-2:] not in (".c", ".h")])
    (native / "core.c").unlink(missing_ok=True)
    ring = (native / "ring.c").read_text()
    window = "static bool is_plausible_window(const rmp_reader *reader) {\n"
    broken = ring.replace(window, f"{window}    if (reader) return true;\n")
    broken = broken.replace("limit - reader->free_pos <= ring->capacity_units", "true")
    assert broken.count("return true;") == ring.count("return true;") + 1
    (native / "ring.c").write_text(broken)
    sources = [native / source.name if source.parent == target.NATIVE else source for source in target.SOURCES]
    monkeypatch.setattr(target, "SOURCES", sources)
    monkeypatch.setattr(target, "FLAGS", [*target.FLAGS[:-1], f"-I{native}", "-Wno-unused-parameter"])
    unsound = target.build("main", tmp_path)
    with pytest.raises((RuntimeError, subprocess.TimeoutExpired)):
        target.read_images(unsound, sorted(target.CORPUS.glob("found-*")), timeout_seconds=3)


@pytest.mark.long
@pytest.mark.timeout(FUZZING_SECONDS + 300)
@pytest.mark.skipif(target.clang() is None, reason="libFuzzer comes with clang")
def test_libfuzzer_finds_nothing(tmp_path):
    corpus = tmp_path / "corpus"
    shutil.copytree(target.CORPUS, corpus)
    print(target.fuzz(target.build("fuzzer", tmp_path), corpus, FUZZING_SECONDS))
