"""A run of one scope, exported by the command line; says how many rows the file has. For the extra `parquet` alone."""

import os
import tempfile

import pyarrow.parquet

import relay_mp
from relay_mp import scope
from relay_mp.cli.main import main

os.chdir(tempfile.mkdtemp())
with relay_mp.session():
    exporter = relay_mp.AtofExporter(relay_mp.AtofExporterConfig(filename="run.jsonl"))
    exporter.register("file")
    with scope.scope("run", relay_mp.ScopeType.Agent):
        pass
    exporter.shutdown()
main(["export", "run.jsonl", "--to", "parquet"])
print(pyarrow.parquet.read_table("run.parquet").num_rows)
