"""A Celery application, and its worker's session: see run_celery.py and test_celery.py."""

import os

import celery
import workload
from celery.signals import worker_init

import relay_mp
from relay_mp import ScopeType, scope
from relay_mp.integrations.celery import instrument

app = celery.Celery("celery_program", broker=os.environ["REDIS"], backend=os.environ["REDIS"])
app.conf.update(broker_connection_retry_on_startup=True)
instrument()


@worker_init.connect
def begin(**_):
    if os.environ.get("BEGINS"):
        relay_mp.session()
        config = relay_mp.AtofExporterConfig()
        config.output_directory, config.filename = ".", "worker.jsonl"
        relay_mp.AtofExporter(config).register("file")


@app.task
def work(number):
    return workload.work(number)


@app.task
def dies():
    workload.dies()


@app.task
def outer(number):
    with scope.scope(f"outer {number}", ScopeType.Agent):
        work.delay(number)


@app.task
def fails():
    with scope.scope("fails", ScopeType.Tool):
        raise LookupError("it")
