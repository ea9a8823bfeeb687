"""One scope, scraped over HTTP from the exporter; says the lines with samples. For the extra `prometheus` alone."""

import urllib.request

import relay_mp
from relay_mp import PrometheusExporter, ScopeType, scope, subscribers

with relay_mp.session():
    exporter = PrometheusExporter()
    exporter.register("prometheus")
    with scope.scope("run", ScopeType.Agent):
        pass
    subscribers.flush()
    with urllib.request.urlopen(str(exporter.url), timeout=30) as answer:
        print(*(line for line in answer.read().decode().splitlines() if not line.startswith("#")), sep="\n")
    exporter.shutdown()
