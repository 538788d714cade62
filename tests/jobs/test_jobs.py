"""The files of jobs/ and the Dockerfile: what can be known of them without Docker, Kubernetes or a cloud."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from oodray.cli import app

ROOT = Path(__file__).parents[2]
JOBS = ROOT / "jobs"
SCRIPTS = ("local.sh", "submit.sh", "sweep.sh")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(name: str) -> dict[str, str]:
    """The packages of a file of constraints, and their versions."""
    lines = (ROOT / name).read_text().splitlines()
    found = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(package): version for package, version in found}


CONSTRAINTS = pins("constraints.txt")
OF_THE_IMAGE = pins("constraints-gpu.txt")


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

    def test_versions_are_those_of_make_and_cuml_s_pandas(self) -> None:
        shared = CONSTRAINTS.keys() & OF_THE_IMAGE.keys()
        assert {name for name in shared if CONSTRAINTS[name] != OF_THE_IMAGE[name]} == {"pandas"}
        assert OF_THE_IMAGE["opencv-python-headless"] == CONSTRAINTS["opencv-python"]
        asked = [*PROJECT["dependencies"], *(text for extra in self.extras() for text in self.extra(extra))]
        assert {canonicalize_name(Requirement(text).name) for text in asked} <= OF_THE_IMAGE.keys()
        assert all(
            OF_THE_IMAGE[canonicalize_name(Requirement(text).name)] in Requirement(text).specifier for text in asked
        )

    def test_every_install_is_of_a_pinned_version(self) -> None:
        runs = [value for name, value in instructions() if name == "RUN"]
        installs = [part for run in runs for part in run.split("&&") if "pip install" in part]
        assert len(installs) == 4
        for install in installs:
            assert "--constraint constraints-gpu.txt" in install or "--no-deps" in install
        for package, version in re.findall(r"([\w-]+)==([\d.]+)", " ".join(runs)):
            assert OF_THE_IMAGE[package] == version

    def test_torch_is_for_the_cuda_of_cuml(self) -> None:
        [cuml] = self.extra("cuml")
        major = re.findall(r"cuml-cu(\d+)", cuml)
        assert re.findall(r"torch is built for CUDA (\d+)", (ROOT / "Dockerfile").read_text()) == major
        assert [OF_THE_IMAGE["cuda-toolkit"].split(".")[0]] == major
        assert {name[-2:] for name in OF_THE_IMAGE if re.search(r"-cu\d\d$", name)} == set(major)

    def test_all_that_is_copied_is_there_and_not_ignored(self) -> None:
        kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        copied = [word for name, value in instructions() if name == "COPY" for word in value.split()[1:-1]]
        assert set(copied) == kept
        assert all((ROOT / path).exists() for path in copied)

    def test_every_extra_is_one_of_the_package(self) -> None:
        assert {"cuml"} <= set(self.extras()) <= PROJECT["optional-dependencies"].keys()

    def extras(self) -> list[str]:
        [found] = re.findall(r"'\.\[([\w,]+)\]'", " ".join(value for name, value in instructions() if name == "RUN"))
        return str(found).split(",")

    def extra(self, name: str) -> list[str]:
        packages: list[str] = PROJECT["optional-dependencies"][name]
        return packages

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


class TestInstallSteps:
    """The Dockerfile's own steps, in an environment of their own, in place of an image."""

    @pytest.mark.slow
    @pytest.mark.soak
    def test_they_leave_a_package_that_works(self, tmp_path: Path) -> None:
        """Without the downloads: what the steps would install is there, as in this interpreter."""
        environment, folder = tmp_path / "environment", tmp_path / "home"
        venv.create(environment, with_pip=False, symlinks=True)
        [packages] = environment.glob("lib/*/site-packages")
        (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
        pip = environment / "bin" / "pip"
        pip.write_text(f'#!/bin/sh\nexec {environment}/bin/python -m pip "$@"\n')
        pip.chmod(0o755)
        there = re.compile(r"\[[\w,]+\]|--constraint \S+|&& pip install \S+ --no-deps opencv\S+")
        offline = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}  # 0 is without, as pip has it
        self.execute(folder, environment, lambda step: there.sub("", step), offline)
        found = packages / "oodray"
        assert (found / "configs" / "runs" / "ade-ood.yaml").is_file()
        assert (found / "job" / "run.py").read_text() == (ROOT / "oodray" / "job" / "run.py").read_text()

    @pytest.mark.timeout(3600)
    def test_in_a_clean_environment(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        """As they are, with all downloads."""
        if not request.config.getoption("--image"):
            pytest.skip("downloads gigabytes: pytest --image")
        environment = tmp_path / "environment"
        venv.create(environment, with_pip=True)
        self.execute(tmp_path / "home", environment, lambda step: step, {})
        freeze = subprocess.run([environment / "bin" / "pip", "freeze"], check=True, capture_output=True, text=True)
        installed = dict(line.split("==") for line in freeze.stdout.splitlines() if "==" in line)
        unpinned = {name for name in installed if canonicalize_name(name) not in OF_THE_IMAGE}
        assert unpinned <= {"pip", "setuptools"}

    def execute(
        self, folder: Path, environment: Path, changed: Callable[[str], str], variables: Mapping[str, str]
    ) -> None:
        """Copy and run what the Dockerfile copies and runs."""
        folder.mkdir()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        clean |= {"PATH": f"{environment / 'bin'}:{os.environ['PATH']}", **variables}
        for name, value in instructions():
            if name == "COPY":
                *copied, target = value.split()[1:]
                for source in copied:
                    (shutil.copytree if (ROOT / source).is_dir() else shutil.copy)(ROOT / source, folder / target)
            elif name == "RUN":
                ran = subprocess.run(
                    ["bash", "-ec", changed(value)],
                    check=False,
                    capture_output=True,
                    text=True,
                    cwd=folder,
                    env=clean,
                )
                assert ran.returncode == 0, ran.stdout + ran.stderr


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

    @pytest.mark.parametrize("places", [("root", "/out"), ("/root", "runs/out"), ("s3:/bucket", "/out")])
    def test_a_place_that_only_this_machine_knows_is_not_submitted(
        self, places: tuple[str, str], tmp_path: Path
    ) -> None:
        variables = fake_oodray(tmp_path, "0", "ray") | {"RAY_API_SERVER_ADDRESS": "http://10.0.0.1:8265"}
        refused = subprocess.run(
            [JOBS / "submit.sh", "demo", *places], check=False, capture_output=True, text=True, env=variables
        )
        assert refused.returncode == 2
        assert "must begin with /" in refused.stderr
        subprocess.run([JOBS / "submit.sh", "demo", "/root", "s3://b/out", "--k", "5"], check=True, env=variables)
        [call] = (tmp_path / "calls").read_text().splitlines()
        assert call.startswith("job submit --address http://10.0.0.1:8265 --submission-id oodray-demo-")
        assert call.endswith(" -- oodray run --dataset demo --root /root --out s3://b/out --k 5")

    def test_a_wrong_option_would_be_noticed(self) -> None:
        with pytest.raises(Exception, match="No such option"):
            parse("oodray run --dataset demo --rot x")


def fake_oodray(folder: Path, codes: str, name: str = "oodray") -> dict[str, str]:
    """A command that notes how it was called and ends with one code after the other."""
    program = folder / name
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


STORE_SHARE = 0.3
"""Of a machine's memory, for Ray's object store, which goes to the disk where shared memory is smaller."""


def gib(size: str) -> float:
    """`16Gi`, or Docker's `16g`."""
    return float(re.sub("(Gi|g)$", "", size))


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
            shared, whole = (
                gib(size) for size in (memory["emptyDir"]["sizeLimit"], container["resources"]["limits"]["memory"])
            )
            assert STORE_SHARE * whole < shared < whole
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
        assert kinds["gpus"]["max_workers"] == content["max_workers"]

    def test_a_run_waits_for_machines_that_nobody_has_asked_for_yet(self) -> None:
        assert loaded("cluster.yaml")["available_node_types"]["gpus"]["min_workers"] == 0
        [command] = commands_of((JOBS / "cluster.yaml").read_text())
        assert re.search(r"--gpus-per-worker 1 --workers \d+:16 --wait \d+", command)

    def test_machines_have_what_ray_does_not_give_them(self) -> None:
        content = loaded("cluster.yaml")
        [size] = re.findall(r"--shm-size=(\w+)", " ".join(content["docker"]["run_options"]))
        memory = {"m6i.xlarge": 16, "g5.2xlarge": 32}
        for kind in content["available_node_types"].values():
            assert gib(size) > STORE_SHARE * memory[kind["node_config"]["InstanceType"]]
            assert kind["node_config"]["ImageId"] == "AMI_ID"
            assert kind["node_config"]["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] >= 100
        assert "IamInstanceProfile" in content["available_node_types"]["gpus"]["node_config"]

    def test_rays_own_schema_takes_it(self) -> None:
        program = (
            "import yaml, sys; from ray.autoscaler._private.util import validate_config, prepare_config;"
            f"validate_config(prepare_config(yaml.safe_load(open({str(JOBS / 'cluster.yaml')!r}))))"
        )
        checked = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
