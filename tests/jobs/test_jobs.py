"""The files of jobs/ and the Dockerfile: what can be known of them without Docker, Kubernetes or a cloud."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from oodray.cli import app

ROOT = Path(__file__).parents[2]
JOBS = ROOT / "jobs"
SCRIPTS = ("local.sh", "submit.sh", "sweep.sh")
CONSTRAINTS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined, arguments filled in where they have a default."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / "Dockerfile").read_text()).replace("\\\n", " ")
    found = [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]
    defaults = dict(value.split("=", 1) for name, value in found if name == "ARG")
    return [(name, re.sub(r"\$\{(\w+)\}", lambda m: defaults[m[1]], value)) for name, value in found]


def loaded(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((JOBS / name).read_text())
    return content


def commands_of(text: str) -> Iterator[str]:
    """Lines of a shell that call oodray."""
    joined = text.replace("\\\n", " ")
    for line in joined.splitlines():
        match = re.search(r"(?<![\w/.-])oodray (run|sweep|compare|doctor)\b[^|&;\n]*", line)
        if match and not line.lstrip().startswith("echo"):
            yield match[0]


def parse(command: str) -> None:
    """Let our own command line read a command, without running it."""
    # Variables of a shell stand for one word here; arrays for none.
    plain = re.sub(r'"?\$\{?\w+\[@\]\}"?|"\$@"', "", command)
    plain = re.sub(r"\$\{?\w+\}?", "word", plain).rstrip("`'")
    _, name, *arguments = shlex.split(plain, comments=True)
    group = typer.main.get_command(app)
    context = group.make_context("oodray", [name, *arguments], resilient_parsing=False)
    _, found, rest = group.resolve_command(context, [name, *arguments])  # type: ignore[attr-defined]
    found.make_context(name, rest if name != "compare" else ["a", "b"])


class TestDockerfile:
    def test_the_base_has_the_ray_and_the_python_of_the_constraints(self) -> None:
        [base] = [value for name, value in instructions() if name == "FROM"]
        assert base.startswith(f"rayproject/ray:{CONSTRAINTS['ray']}-py311-cu")

    def test_torch_is_that_of_the_constraints_for_the_cuda_of_cuml(self) -> None:
        text = dict(value.split("=", 1) for name, value in instructions() if name == "ARG")
        [cuml] = re.findall(r'"cuml-(cu\d+)', (ROOT / "pyproject.toml").read_text())
        assert text["TORCH_INDEX"].rsplit("/", 1)[1].startswith(cuml)
        runs = " ".join(value for name, value in instructions() if name == "RUN")
        pinned = re.findall(r"([\w-]+)==([\d.]+)", runs)
        headless = ("opencv-python-headless", CONSTRAINTS["opencv-python"])
        assert pinned == [("torch", CONSTRAINTS["torch"]), headless]

    def test_all_that_is_copied_is_there_and_not_ignored(self) -> None:
        kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        copied = [word for name, value in instructions() if name == "COPY" for word in value.split()[1:-1]]
        assert set(copied) == kept
        assert all((ROOT / path).exists() for path in copied)

    def test_every_extra_is_one_of_the_package(self) -> None:
        runs = " ".join(value for name, value in instructions() if name == "RUN")
        [extras] = re.findall(r"'\.\[([\w,]+)\]'", runs)
        assert "cuml" in extras.split(",")
        declared = re.findall(r"(?m)^(\w+) = \[", (ROOT / "pyproject.toml").read_text())
        assert set(extras.split(",")) <= set(declared)

    def test_it_compiles_nothing_and_is_nobody_special(self) -> None:
        runs = " ".join(value for name, value in instructions() if name == "RUN")
        assert not re.search(r"\b(gcc|g\+\+|nvcc|make|cmake|apt-get|sudo)\b", runs)
        assert [value for name, value in instructions() if name == "USER"] == ["ray"]

    def test_the_packages_come_before_the_code(self) -> None:
        order = [value for name, value in instructions() if name in ("COPY", "RUN")]
        heavy = next(index for index, value in enumerate(order) if "[cuml" in value)
        assert heavy < next(index for index, value in enumerate(order) if "oodray ./oodray" in value)

    def test_doctor_is_its_check(self) -> None:
        assert ("RUN", "oodray doctor") in instructions()
        [check] = [value for name, value in instructions() if name == "HEALTHCHECK"]
        assert '["oodray", "doctor"]' in check


class TestScripts:
    @pytest.mark.parametrize("name", SCRIPTS)
    def test_the_shell_reads_it(self, name: str) -> None:
        subprocess.run(["bash", "-n", JOBS / name], check=True)
        assert os.access(JOBS / name, os.X_OK)
        assert "set -euo pipefail" in (JOBS / name).read_text()

    @pytest.mark.parametrize("name", SCRIPTS)
    def test_without_arguments_it_says_how(self, name: str) -> None:
        refused = subprocess.run([JOBS / name], check=False, capture_output=True, text=True)
        assert refused.returncode == 2
        assert refused.stderr.startswith("usage: ")

    @pytest.mark.parametrize("name", [*SCRIPTS, "cluster.yaml"])
    def test_its_commands_are_ours(self, name: str) -> None:
        commands = list(commands_of((JOBS / name).read_text()))
        assert commands
        for command in commands:
            parse(command)

    def test_a_wrong_option_would_be_noticed(self) -> None:
        with pytest.raises(Exception, match="No such option"):
            parse("oodray run --dataset demo --rot x")


def fake_oodray(folder: Path, codes: str) -> dict[str, str]:
    """A command `oodray` that notes how it was called and ends with one code after the other."""
    program = folder / "oodray"
    program.write_text(
        f'#!/usr/bin/env bash\necho "$@" >> {folder}/calls\n'
        f"codes=({codes})\nn=$(wc -l < {folder}/calls)\nexit ${{codes[n-1]:-0}}\n"
    )
    program.chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}


class TestLocal:
    @pytest.mark.parametrize(
        ("codes", "calls", "code"), [("0", 1, 0), ("1 1 0", 3, 0), ("2", 1, 2), ("130", 1, 130), ("1 1 1 1", 3, 1)]
    )
    def test_it_starts_again_what_may_continue(self, tmp_path: Path, codes: str, calls: int, code: int) -> None:
        command = [str(JOBS / "local.sh"), "folder", "a b", "--tau", "1"]
        ended = subprocess.run(
            command, check=False, capture_output=True, env=fake_oodray(tmp_path, codes), cwd=tmp_path
        )
        assert ended.returncode == code
        assert (tmp_path / "calls").read_text() == "run --dataset folder --root a b --out runs/folder --tau 1\n" * calls


def test_a_sweep_of_two_datasets_runs(tmp_path: Path, environment: dict[str, str]) -> None:
    calls = fake_oodray(tmp_path, "0")
    subprocess.run([JOBS / "sweep.sh", "in", "out", "x", "y"], check=True, env=calls | {"MODEL": "net"}, cwd=tmp_path)
    assert (tmp_path / "calls").read_text().splitlines() == [
        "run --dataset x --root in/x --out out/x --sweep-k 3:10 --model net",
        "sweep out/x",
        "run --dataset y --root in/y --out out/y --sweep-k 3:10 --model net",
        "sweep out/y",
        "compare out/x out/y",
    ]


class TestRayJob:
    def test_its_command_is_ours(self) -> None:
        parse(loaded("rayjob.yaml")["spec"]["entrypoint"])

    def test_versions_agree(self) -> None:
        assert loaded("rayjob.yaml")["spec"]["rayClusterSpec"]["rayVersion"] == CONSTRAINTS["ray"]
        text = "".join((JOBS / name).read_text() for name in ("rayjob.yaml", "cluster.yaml"))
        assert set(re.findall(r"Ray (\d+\.\d+\.\d+)", text)) <= {CONSTRAINTS["ray"]}
        version = re.search(r'__version__ = "(.*)"', (ROOT / "oodray/__init__.py").read_text())
        assert version
        images = re.findall(r"image: (\S+)", text)
        assert set(images) == {f"REGISTRY/oodray:{version[1]}"}
        assert f"REGISTRY/oodray:{version[1]} ." in (ROOT / "Dockerfile").read_text()

    def test_gpus_are_given_back_and_a_retry_continues(self) -> None:
        spec = loaded("rayjob.yaml")["spec"]
        assert spec["shutdownAfterJobFinishes"] is True
        assert spec["ttlSecondsAfterFinished"] > 0
        assert spec["backoffLimit"] > 0
        assert spec["activeDeadlineSeconds"] > spec["preRunningDeadlineSeconds"]

    def test_the_head_does_no_work_and_the_workers_have_gpus(self) -> None:
        cluster = loaded("rayjob.yaml")["spec"]["rayClusterSpec"]
        head, [group] = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
        assert head["rayStartParams"]["num-cpus"] == "0"
        for kind, spec in (("head", head), ("worker", group)):
            pod = spec["template"]["spec"]
            [container] = pod["containers"]
            assert container["resources"]["requests"] == container["resources"]["limits"]
            assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (kind == "worker")
            volumes = {volume["name"] for volume in pod["volumes"]}
            assert volumes == {mount["name"] for mount in container["volumeMounts"]}
            memory = next(volume for volume in pod["volumes"] if volume["name"] == "shared-memory")
            assert memory["emptyDir"]["medium"] == "Memory"
        workers = re.search(r"--workers (\d+)", loaded("rayjob.yaml")["spec"]["entrypoint"])
        assert workers
        assert int(workers[1]) == group["replicas"]

    def test_paths_are_those_of_the_dockerfile(self) -> None:
        settings = dict(pair.split("=") for name, value in instructions() if name == "ENV" for pair in value.split())
        mounts = loaded("rayjob.yaml")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
        paths = {mount["name"]: mount["mountPath"] for mount in mounts["volumeMounts"]}
        assert paths["cache"] == settings["OODRAY_CACHE"]
        assert settings["HF_HOME"].startswith(paths["cache"])
        entrypoint = loaded("rayjob.yaml")["spec"]["entrypoint"]
        assert re.findall(r"--(?:root|out) (/\w+)/", entrypoint) == [paths["data"]] * 2


class TestCluster:
    def test_the_head_has_no_gpu_and_the_workers_are_preemptible(self) -> None:
        content = loaded("cluster.yaml")
        kinds = content["available_node_types"]
        assert kinds[content["head_node_type"]]["resources"] == {"CPU": 0}
        assert kinds["gpus"]["resources"]["GPU"] == 1
        assert kinds["gpus"]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
        assert kinds["gpus"]["min_workers"] == 2
        assert kinds["gpus"]["max_workers"] == content["max_workers"]

    def test_rays_own_schema_takes_it(self) -> None:
        program = (
            "import yaml, sys; from ray.autoscaler._private.util import validate_config, prepare_config;"
            f"validate_config(prepare_config(yaml.safe_load(open({str(JOBS / 'cluster.yaml')!r}))))"
        )
        checked = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
