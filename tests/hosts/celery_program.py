"""A Celery application, and its worker's session: see test_celery.py."""

import os

import celery
from celery.signals import worker_init

import relay_mp
from relay_mp import ScopeType, scope
from relay_mp.integrations.celery import instrument

app = celery.Celery("program", broker=os.environ["BROKER"], backend=os.environ["BACKEND"])
app.conf.update(broker_connection_retry_on_startup=True)
instrument()


@worker_init.connect
def begin(**_):
    if "DIRECTORY" in os.environ:
        relay_mp.session()
        config = relay_mp.AtofExporterConfig()
        config.output_directory, config.filename = os.environ["DIRECTORY"], "worker.jsonl"
        relay_mp.AtofExporter(config).register("file")


@app.task
def work(number):
    with scope.scope(f"work {number}", ScopeType.Tool):
        scope.event("inside", data=number)
    return os.getpid()


@app.task
def outer(number):
    with scope.scope(f"outer {number}", ScopeType.Agent):
        work.delay(number)


@app.task
def leaves_a_scope_open():
    scope.push("left open", ScopeType.Tool)
    return os.getpid()


@app.task
def fails():
    with scope.scope("fails", ScopeType.Tool):
        raise LookupError("it")


@app.task
def dies():
    scope.event("last words")
    os.kill(os.getpid(), 9)
