"""What workers of tests/observability/component/test_component_workers.py do, whichever way they are started."""

import os

from relay_mp import plugin, scope
from relay_mp.observability import AtofConfig, AtofFileSinkConfig, ComponentSpec, ObservabilityConfig


def config(path):
    """The configuration that owner and workers have alike."""
    sink = AtofFileSinkConfig(output_directory=os.path.dirname(path), filename=os.path.basename(path), name="shared")
    return plugin.PluginConfig(components=[ComponentSpec(ObservabilityConfig(atof=AtofConfig(True, [sink])))])


def work(path):
    """Initializes as its owner does, emits, clears. Returns the codes of what its report says."""
    plugin.activate(config(path))
    scope.event("worker", data=os.getpid())
    codes = [each["code"] for each in plugin.report()["runtime_diagnostics"]]
    plugin.clear()
    scope.event("cleared", data=os.getpid())
    return codes
