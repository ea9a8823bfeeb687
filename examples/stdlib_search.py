"""The corpus and the search index of `worker_pool.py`: the docstrings of the standard library.

    sysconfig's stdlib directory -> read_corpus -> [Entry] -> Index -> search(question) -> [Hit]

Plain Python and NumPy, without telemetry: the caller opens the scopes. `Index` is built once, in
the parent, and handed to every worker by the pool's initializer: forked workers share it, spawned
ones get a pickle of it (about 2 MB). Nothing is cached on disk.
"""

from __future__ import annotations

import ast
import math
import re
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Large or gone by the next release, and of no help to somebody who asks how to do a thing.
SKIPPED_MODULES = frozenset(
    """
    antigravity distutils ensurepip idlelib lib2to3 pydoc_data this tkinter turtle turtledemo
    """.split()
)

STOP_WORDS = frozenset(
    """
    a also an and any are as at be been but by can do does each else for from get has have how i if
    in into is it its me might must my no not of on one onto or our out python self should so some
    such than that the their them then there these they this those to up use used using want was way
    we what when where which who will with without you your
    """.split()
)

Named = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+[0-9]*|[0-9]+")
_SUFFIXES = ("ations", "ation", "ings", "ing", "ies", "ied", "ers", "er", "ed", "es", "s", "e", "y")


@dataclass(frozen=True, slots=True)
class Entry:
    """A documented module, class or function: where it is and what its docstring says."""

    module: str
    qualname: str
    path: str
    doc: str

    @property
    def title(self) -> str:
        return f"{self.module}.{self.qualname}" if self.qualname else self.module


@dataclass(frozen=True, slots=True)
class Hit:
    entry: Entry
    score: float


@dataclass(frozen=True, slots=True)
class Definition:
    """What reading the source adds to an `Entry`."""

    signature: str
    summary: str
    line: int
    parameters: tuple[str, ...]


def terms(text: str) -> list[str]:
    """Split text into lower-case stems; snake_case and CamelCase names fall into their words."""
    words = (word.lower() for word in _WORD.findall(text))
    return [_stem(word) for word in words if word not in STOP_WORDS and len(word) > 1]


def _stem(word: str) -> str:
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            stem = word[: -len(suffix)]
            return stem[:-1] if len(stem) > 3 and stem[-1] == stem[-2] else stem
    return word


def read_corpus(stdlib: Path | None = None) -> list[Entry]:
    """Parse the running interpreter's standard library: an `Entry` for each public docstring."""
    root = stdlib or Path(sysconfig.get_path("stdlib"))
    return [entry for path in _source_files(root) for entry in _entries(root, path)]


def _source_files(root: Path) -> Iterator[Path]:
    for name in sorted(sys.stdlib_module_names - SKIPPED_MODULES):
        if name.startswith("_"):
            continue
        if (module := root / f"{name}.py").is_file():
            yield module
        elif (package := root / name).is_dir():
            yield from sorted(package.rglob("*.py"))


def _entries(root: Path, path: Path) -> Iterator[Entry]:
    parts = path.relative_to(root).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    if any(part.startswith("_") or part in ("test", "tests") for part in module.split(".")):
        return
    for qualname, docstring in _documented(ast.parse(path.read_bytes()), ""):
        yield Entry(module, qualname, str(path), docstring)


def _documented(node: ast.Module | Named, qualname: str) -> Iterator[tuple[str, str]]:
    """Yield the qualified name and the docstring of the node and of the public names in it."""
    if docstring := ast.get_docstring(node):
        yield qualname, docstring
    if isinstance(node, ast.Module | ast.ClassDef):
        for child in node.body:
            if isinstance(child, Named) and not child.name.startswith("_"):
                yield from _documented(child, f"{qualname}.{child.name}".lstrip("."))


class Index:
    """TF-IDF over entries: unit vectors, stored by term, so that a search touches its own terms."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = list(entries)
        counts = [_weighted_counts(entry) for entry in self.entries]
        self.rows = {term: row for row, term in enumerate(sorted({t for c in counts for t in c}))}

        rows = np.array([self.rows[t] for c in counts for t in c], dtype=np.int32)
        self.columns = np.repeat(np.arange(len(counts), dtype=np.int32), [len(c) for c in counts])
        frequency = np.array([n for c in counts for n in c.values()], dtype=np.float32)
        self.idf = np.log((1 + len(counts)) / (1 + np.bincount(rows, minlength=len(self.rows)))) + 1

        weights = (1 + np.log(frequency)) * self.idf[rows]
        norms = np.sqrt(np.bincount(self.columns, weights**2, minlength=len(counts)))
        # A two-word docstring would win every search that has one of its words: lengths below the
        # median count as the median.
        norms = np.maximum(norms, np.median(norms))
        order = np.argsort(rows, kind="stable")
        self.weights = (weights / norms[self.columns])[order].astype(np.float32)
        self.columns = self.columns[order]
        self.starts = np.searchsorted(rows[order], np.arange(len(self.rows) + 1))

    def search(self, query: Counter[str], limit: int) -> list[Hit]:
        """Find the `limit` entries nearest to the query by cosine, best first."""
        scores = np.zeros(len(self.entries), dtype=np.float32)
        for term, weight in query.items():
            if (row := self.rows.get(term)) is not None:
                postings = slice(self.starts[row], self.starts[row + 1])
                scores[self.columns[postings]] += weight * self.idf[row] * self.weights[postings]
        scores /= math.sqrt(sum((w * self.rarity(t)) ** 2 for t, w in query.items())) or 1.0
        best = np.argsort(-scores, kind="stable")[:limit]
        return [Hit(self.entries[i], float(scores[i])) for i in best if scores[i] > 0]

    def coverage(self, query: Counter[str], entry: Entry, definition: Definition) -> float:
        """Tell which share of the query, by rarity, the name, parameters and summary have."""
        found = {*terms(f"{entry.title} {definition.summary} {' '.join(definition.parameters)}")}
        total = sum(self.rarity(term) for term in query)
        return sum(self.rarity(term) for term in query if term in found) / (total or 1.0)

    def relevance(self, query: Counter[str], hit: Hit, definition: Definition) -> float:
        """Score for reranking: cosine and coverage, less for what is not asked for.

        What can be called as it is goes before a method or a module, `median` before `median_high`.
        """
        entry = hit.entry
        score = (hit.score + self.coverage(query, entry, definition)) / 2
        if not entry.qualname or "." in entry.qualname:
            score *= 0.85
        name = terms(entry.qualname or entry.module)
        asked_for = sum(term in query for term in name)
        return score - 0.1 * (1 - asked_for / len(name)) if asked_for else score

    def rarity(self, term: str) -> float:
        """Give a term's inverse document frequency; the highest, if the corpus does not have it."""
        row = self.rows.get(term)
        return float(self.idf[row]) if row is not None else float(self.idf.max())


def _weighted_counts(entry: Entry) -> Counter[str]:
    """Term counts; the name and the first line say what a thing is for, so they count more."""
    first_line, _, rest = entry.doc.partition("\n")
    counts = Counter(terms(rest))
    for term in terms(first_line):
        counts[term] += 3
    for term in terms(entry.title):
        counts[term] += 3
    return counts


def read_definition(entry: Entry) -> Definition:
    """Read the entry's file, parse it and pick the definition: signature, first sentence, line."""
    node: ast.AST = ast.parse(Path(entry.path).read_bytes())
    for name in filter(None, entry.qualname.split(".")):
        children = (child for child in ast.iter_child_nodes(node) if isinstance(child, Named))
        node = next(child for child in children if child.name == name)
    summary = " ".join(entry.doc.partition("\n\n")[0].split())
    line = getattr(node, "lineno", 1)
    if (arguments := _arguments(node)) is None:
        return Definition(f"import {entry.module}", summary, line, ())
    every = arguments.posonlyargs + arguments.args + arguments.kwonlyargs
    parameters = tuple(argument.arg for argument in every)
    return Definition(f"{entry.title}({ast.unparse(arguments)})", summary, line, parameters)


def _arguments(node: ast.AST) -> ast.arguments | None:
    """Give a function's arguments; a class has those of its `__init__`, a module none."""
    if isinstance(node, ast.ClassDef):
        inits = [c for c in node.body if isinstance(c, ast.FunctionDef) and c.name == "__init__"]
        if not inits:
            return ast.arguments([], [], None, [], [], None, [])
        arguments = inits[0].args
        del (arguments.posonlyargs or arguments.args)[:1]  # self: it is called without
        return arguments
    return node.args if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else None
