"""A pool of agent workers answers questions about the standard library that runs it.

    parent                      workers                             dispatcher: thread or process
    index-stdlib  --index---->  an Agent scope a question
    pool.map      --question->    Retriever  TF-IDF over docstrings
                                  Tool       read a file, parse it  --events-->  show_progress
                                  Reranker   order the candidates                AtofExporter: JSONL
                  <-answer----    Evaluator  enough, or once more?

No worker sets anything up: it emits, and its scopes stand under the scope in which the parent
submitted. After the run the tree is rebuilt from the JSONL file alone. It runs as it is:

    python examples/worker_pool.py --start-method forkserver --dispatcher process
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import stdlib_search
import trace_tree
from stdlib_search import Definition, Entry, Hit

import relay_mp
from relay_mp import ScopeHandle, ScopeType, pools, scope

CANDIDATES = 8
EXPANSION_TERMS = 6
LOW_CONFIDENCE = 0.6


def step(name: str, scope_type: ScopeType, **inputs: Any) -> AbstractContextManager[ScopeHandle]:
    """Open a scope that says in which process it ran; ATOF has no field for that, metadata has."""
    return scope.scope(name, scope_type, input=inputs, metadata={"pid": os.getpid()})


# --- in the workers -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Choice:
    """A candidate, read and scored; `coverage`: what its name and summary have of the question."""

    entry: Entry
    definition: Definition
    coverage: float
    score: float


@dataclass(frozen=True, slots=True)
class Answer:
    question: str
    best: Choice | None
    emit_nanoseconds: list[int]


index: stdlib_search.Index
emit_nanoseconds: list[int] = []


def use_index(built: stdlib_search.Index) -> None:
    """Take over the parent's index, by fork or by pickle: the pool's initializer."""
    global index
    index = built


def mark(name: str, **data: Any) -> None:
    """Emit a mark under the current scope and note how long the call took."""
    started = time.perf_counter_ns()
    scope.event(name, data=data)
    emit_nanoseconds.append(time.perf_counter_ns() - started)


def answer_question(question: str) -> Answer:
    """One agent run: retrieve, read, rerank, evaluate; in doubt, once more with a wider query."""
    emit_nanoseconds.clear()
    with step("answer-question", ScopeType.Agent, question=question):
        query = Counter(stdlib_search.terms(question))
        choices = attempt(query, query, known=set())
        if (confidence := evaluate(choices)) < LOW_CONFIDENCE:
            wider = expand(query, choices)
            added = sorted(wider.keys() - query.keys())
            mark("low-confidence-retry", confidence=confidence, added=added)
            choices += attempt(query, wider, known={choice.entry for choice in choices})
            choices.sort(key=lambda choice: choice.score, reverse=True)
            confidence = evaluate(choices)
        best = choices[0] if choices else None
        mark("answered", title=best.entry.title if best else None, confidence=confidence)
    return Answer(question, best, emit_nanoseconds.copy())


def attempt(question: Counter[str], query: Counter[str], known: set[Entry]) -> list[Choice]:
    """Retrieve candidates that are not known yet, read them and put the best first."""
    with step("search-docstrings", ScopeType.Retriever, terms=query):
        hits = [hit for hit in index.search(query, CANDIDATES) if hit.entry not in known]
        mark("candidates-found", titles=[hit.entry.title for hit in hits])
    definitions = [read_source(hit.entry) for hit in hits]
    return rerank(question, hits, definitions)


def read_source(entry: Entry) -> Definition:
    with step("read-source", ScopeType.Tool, title=entry.title, path=entry.path):
        definition = stdlib_search.read_definition(entry)
        mark("definition-read", signature=definition.signature, line=definition.line)
    return definition


def rerank(question: Counter[str], hits: list[Hit], definitions: list[Definition]) -> list[Choice]:
    with step("rerank", ScopeType.Reranker, titles=[hit.entry.title for hit in hits]):
        choices = []
        for hit, definition in zip(hits, definitions, strict=True):
            coverage = index.coverage(question, hit.entry, definition)
            score = index.relevance(question, hit, definition)
            mark("candidate-scored", title=hit.entry.title, score=round(score, 3))
            choices.append(Choice(hit.entry, definition, coverage, score))
        choices.sort(key=lambda choice: choice.score, reverse=True)
        if choices:
            mark("candidate-chosen", title=choices[0].entry.title, score=round(choices[0].score, 3))
    return choices


def evaluate(choices: list[Choice]) -> float:
    """How far to trust the best choice, 0 to 1."""
    with step("evaluate", ScopeType.Evaluator, title=choices[0].entry.title if choices else None):
        confidence = round(choices[0].coverage, 3) if choices else 0.0
        mark("confidence", value=confidence, enough=confidence >= LOW_CONFIDENCE)
    return confidence


def expand(query: Counter[str], choices: list[Choice]) -> Counter[str]:
    """Add the terms that set the three best candidates apart (pseudo-relevance feedback)."""
    weights: defaultdict[str, float] = defaultdict(float)
    for choice in choices[:3]:
        for term in set(stdlib_search.terms(choice.entry.doc)) - query.keys():
            weights[term] += choice.score * index.rarity(term)
    added = sorted(weights, key=lambda term: (-weights[term], term))[:EXPANSION_TERMS]
    return Counter({term: 2 * count for term, count in query.items()} | dict.fromkeys(added, 1))


# --- where the dispatcher runs --------------------------------------------------------------------


class Progress:
    """A line a finished question, from the events alone; runs interleave: state is kept by uuid."""

    def __init__(self) -> None:
        self.open: dict[str, dict[str, Any]] = {}
        self.finished = 0

    def __call__(self, event: relay_mp.ScopeEvent | relay_mp.MarkEvent) -> None:
        if event.name == "answered" and event.parent_uuid in self.open:
            self.open[event.parent_uuid]["answer"] = event.data
        elif event.kind == "scope" and event.name == "answer-question":
            if event.scope_category == "start":
                self.open[event.uuid] = {"started": event.timestamp, "input": event.data}
            elif run := self.open.pop(event.uuid, None):
                self.show(event, run)

    def show(self, event: relay_mp.ScopeEvent, run: dict[str, Any]) -> None:
        self.finished += 1
        taken = datetime.fromisoformat(event.timestamp) - datetime.fromisoformat(run["started"])
        print(
            f"{self.finished:>4}  pid {event.pid}  {taken.total_seconds():6.3f} s  "
            f"{run['input']['question']}  ->  {run.get('answer', {}).get('title')}",
            flush=True,
        )


# Registered by name, so that a dispatcher in a process of its own can import it.
show_progress = Progress()


# --- in the parent --------------------------------------------------------------------------------


def main() -> None:
    options = parse_arguments()
    lines = [line.strip() for line in options.questions.read_text(encoding="utf-8").splitlines()]
    questions = [line for line in lines if line and not line.startswith("#")]
    if not questions:
        raise SystemExit(f"{options.questions} has no questions")
    config = relay_mp.AtofExporterConfig()
    config.output_directory = str(options.output or tempfile.mkdtemp(prefix="relay-mp-"))

    with relay_mp.session(dispatcher=options.dispatcher) as session:
        relay_mp.subscribers.register("progress", "worker_pool:show_progress")
        exporter = relay_mp.AtofExporter(config)
        exporter.register("file")
        answers = run(questions, options.workers, options.start_method)
        exporter.shutdown()
        report(answers, session.stats(), exporter.path)


def run(questions: list[str], workers: int, start_method: str) -> list[Answer]:
    with step("answer-questions", ScopeType.Function, questions=len(questions)):
        with step("index-stdlib", ScopeType.Embedder):
            built = stdlib_search.Index(stdlib_search.read_corpus())
            scope.event("indexed", data={"docstrings": len(built.entries), "terms": len(built.idf)})
        with pools.ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context(start_method),
            initializer=use_index,
            initargs=(built,),
        ) as pool:
            return list(pool.map(answer_question, questions))


def report(answers: list[Answer], stats: Any, path: str) -> None:
    show_answers(answers)
    events = trace_tree.load(path)
    show_tree(events)

    print("\nEvents emitted, by process")
    for process in stats.processes:
        parent = "  (parent)" if process.pid == os.getpid() else ""
        print(f"  pid {process.pid}: {process.emitted}{parent}")
    taken = np.array([ns for answer in answers for ns in answer.emit_nanoseconds]) / 1000
    p50, p99 = np.percentile(taken, [50, 99])
    print(f"Emit latency: p50 {p50:.1f} us, p99 {p99:.1f} us, {len(taken)} marks in the workers")
    print(f"Emitted {stats.emitted}, in the file {len(events)}, lost {stats.lost}")
    print(f"File: {path}")


def show_answers(answers: list[Answer]) -> None:
    print("\nAnswers")
    for answer in answers:
        print(f"  {answer.question}")
        if answer.best is None:
            print("    no candidate")
            continue
        definition = answer.best.definition
        file = Path(*Path(answer.best.entry.path).parts[-2:])
        print(f"    {definition.signature}  [{file}:{definition.line}]")
        print(f"    {definition.summary[:100]}")


def show_tree(events: list[dict[str, Any]]) -> None:
    """The whole trace is long: show what the parent did and the longest of the agent runs."""
    (root,) = trace_tree.build(events)
    runs = [node for node in root.children if node.name == "answer-question"]
    longest = max(runs, key=lambda node: len(list(node.walk())))
    root.children = [node for node in root.children if node is longest or node not in runs]
    print(f"\nThe tree, with one of its {len(runs)} agent runs")
    print(*trace_tree.render(root), sep="\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 2, metavar="N")
    parser.add_argument(
        "--start-method",
        choices=multiprocessing.get_all_start_methods(),
        default=multiprocessing.get_context().get_start_method(),
    )
    parser.add_argument("--dispatcher", choices=["thread", "process"], default="thread")
    parser.add_argument(
        "--questions",
        type=Path,
        default=Path(__file__).with_name("questions.txt"),
        metavar="FILE",
        help="one question a line",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="where the JSONL file goes; a new temporary directory if left out",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
