"""The exporters of examples/observability.toml on a run of agents in two processes.

    python examples/observability.py [DIRECTORY]

Files go to the directory; what each exporter says of itself is printed at the end.
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import exporters

from relay_mp import ScopeType, plugin, pools, scope

CONFIGURATION = Path(__file__).with_suffix(".toml")


async def main() -> None:
    """Configures, runs, reports."""
    directory = sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="relay-mp-observability-")
    os.makedirs(directory, exist_ok=True)
    os.chdir(directory)
    os.environ.setdefault("COLLECTOR_TOKEN", "Bearer none")
    report = await plugin.initialize({}, CONFIGURATION)
    for found in report["diagnostics"]:
        print(f"{found['level']}: {found['message']}")
    with scope.scope("run", ScopeType.Function), pools.ProcessPoolExecutor(2) as pool:
        print(*pool.map(exporters.answer, ["How long is a ring?", "How long is a unit?"]), sep="\n")
    await plugin.clear_async()
    for lost in (plugin.report() or report)["runtime_diagnostics"]:
        print(f"{lost['field']}: {lost['code']}: {lost['count']}")
    print(*sorted(str(path) for path in Path().rglob("*") if path.is_file()), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
