"""The Dockerfile: nobody can build it where these tests run, so each of its lines is held to something real."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.docker import recipes, stage
from tests.docker.stage import Stage
from tests.support import peers

#: RUN lines, by what they begin with, that a plain shell executes below.
EXECUTED = {
    "build": (
        "python -m venv",
        "pip --python /opt/secondread/bin/python install --no-deps --require-hashes",
        "pip wheel --no-deps --no-build-isolation --no-index",
        "/opt/secondread/bin/python -c",
    ),
    "node": ("groupadd", "install --directory"),
}
#: Those that cannot be, with the reason.
NOT_EXECUTED = {
    "pycuda": {
        "pip install --no-deps --require-hashes": "it compiles against CUDA's headers, and fetches 2 GB from NVIDIA",
    },
    "gpu": {
        'test "$ONNXRUNTIME"': "it installs what the stage pycuda made; its branches are taken with a pip that only tells",
    },
}


@pytest.mark.peer("hadolint")
def test_hadolint_has_nothing_to_say() -> None:
    said = subprocess.run(
        [peers.path("hadolint"), "--no-color", recipes.DOCKERFILE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
    assert "hadolint ignore" not in recipes.DOCKERFILE.read_text(encoding="utf-8")
    assert not (recipes.ROOT / ".hadolint.yaml").exists()


def test_base_images_are_stages_or_have_a_full_tag() -> None:
    stages = {line.split()[-1] for line in recipes.of("FROM")}
    bases = {line.split()[0] for line in recipes.of("FROM")} - stages
    assert stages == {"build", "node", "cuda", "pycuda", "gpu"}
    for base in bases:
        assert re.fullmatch(r"[a-z/]+:\d+\.\d+\.\d+-[a-z0-9.-]+(@sha256:[0-9a-f]{64})?", base), base


def test_the_images_python_is_one() -> None:
    """What the stage pycuda builds, and the folder of TensorRT's libraries, are for the Python of the images."""
    versions = {tag for tag in re.findall(r"python:(\d+\.\d+)\.", "\n".join(recipes.of("FROM")))}
    (folder,) = re.findall(
        r"lib/python(\d+\.\d+)/site-packages/tensorrt_libs", "\n".join(recipes.of("ENV", "gpu"))
    )
    assert versions == {folder} == {"3.11"}


def test_every_pip_line_installs_from_a_lock_or_from_what_was_built() -> None:
    lines = [
        part
        for run in recipes.of("RUN")
        for part in re.split(r"&&|;", recipes.command(run))
        if "pip" in part.split()
    ]
    assert lines
    for line in lines:
        words = shlex.split(line)
        if "install" in words:
            assert "--no-deps" in words, line
            assert "--no-index" in words or {"--require-hashes", "--only-binary", "-r"} <= set(words), line
        if "wheel" in words:
            assert {"--no-deps", "--no-build-isolation"} <= set(words), line
            assert "--no-index" in words or "--require-hashes" in words, line


def test_the_images_run_as_one_user_that_is_not_root() -> None:
    for name in ("node", "gpu"):
        assert recipes.of("USER", name)[-1] == "10001:10001"


def test_what_is_copied_exists_and_is_sent_to_the_builder() -> None:
    sources = [
        source
        for line in recipes.of("COPY")
        if not line.startswith("--from=")
        for source in line.split()[:-1]
    ]
    assert len(sources) > 10
    for source in sources:
        assert (recipes.ROOT / source).exists(), source
        assert stage.sent(source), f"{source} is left out by .dockerignore"


def test_nothing_else_is_sent_to_the_builder() -> None:
    for private in (
        "secondread-data/spool/x.dcm",
        "secondread.yaml",
        ".venv/bin/python",
        "docker/secrets/pgpass",
    ):
        assert not stage.sent(private), private
    for unneeded in (
        "tests/conftest.py",
        ".git/HEAD",
        "worker/__pycache__/up.pyc",
        "models/training/out/model.pt",
    ):
        assert not stage.sent(unneeded), unneeded


def test_each_run_line_is_executed_or_says_why_not() -> None:
    for name in ("build", "node", "cuda", "pycuda", "gpu"):
        known = [*EXECUTED.get(name, ()), *NOT_EXECUTED.get(name, {})]
        lines = [recipes.command(run) for run in recipes.of("RUN", name)]
        assert len(lines) == len(known), f"{name}: a RUN line is new; execute it here, or say why not"
        for line, beginning in zip(lines, known, strict=True):
            assert line.startswith(beginning)
            subprocess.run(["sh", "-n", "-c", line], check=True)


def test_the_build_stage_makes_an_environment_whose_packages_are_ours(tmp_path: Path) -> None:
    made = Stage(tmp_path)
    make, install, wheel, check = made.lines("build")
    made.run(make)
    made.copy("requirements.lock", "requirements-build.lock")
    # The whole takes a minute; `scripts/environment` installs it, with the same options, before any test.
    shorten(made.inside("/src/requirements.lock"))
    made.run(install)
    made.copy(
        "pyproject.toml", "README.md", "LICENSE", "worker", "dicom_node", "engines", "db", "models", "demo"
    )
    made.run(wheel)
    # What was left out above
    (packages,) = made.inside("/opt/secondread").glob("lib/python3*/site-packages")
    (packages / "rest.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    made.run(check)
    assert made.inside("/opt/secondread/bin/secondread").exists()
    assert made.inside("/opt/secondread/share/secondread/models/chest-ct/model.onnx").exists()

    # An unrelated distribution with one of the names: pip would say nothing, the check does
    foreign = packages / "foreign_db-1.dist-info"
    foreign.mkdir()
    (foreign / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign-db\nVersion: 1\n")
    (foreign / "RECORD").write_text("db/__init__.py,,\n")
    assert "foreign-db" in made.run(check, fails=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make users and give folders away")
def test_the_images_user_is_made_and_owns_the_storage(tmp_path: Path) -> None:
    made = Stage(tmp_path)
    make_user, make_folder = made.lines("node")
    made.inside("/etc").mkdir()
    for name in ("passwd", "group", "shadow", "gshadow"):
        made.inside(f"/etc/{name}").write_text("")
    for program in ("groupadd", "useradd"):
        make_user = re.sub(rf"\b{program} ", f"{program} --prefix {tmp_path} ", make_user)
    made.run(make_user)
    made.run(make_folder)
    assert made.inside("/etc/passwd").read_text() == "secondread:x:10001:10001::/tmp:/usr/sbin/nologin\n"
    data = made.inside("/data").stat()
    assert (data.st_uid, data.st_gid, data.st_mode & 0o777) == (10001, 10001, 0o700)


@pytest.mark.parametrize(
    ("wanted", "runs"),
    [
        ("cpu", ["install /wheels"]),
        ("cuda", ["install /wheels", "uninstall onnxruntime", "install requirements-onnxruntime-gpu.lock"]),
        ("rocm", None),
    ],
)
def test_the_gpu_image_has_one_onnx_runtime(tmp_path: Path, wanted: str, runs: list[str] | None) -> None:
    (line,) = [recipes.command(run) for run in recipes.of("RUN", "gpu")]
    told = tmp_path / "pip"
    told.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/told\n')
    told.chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", line], env={"PATH": f"{tmp_path}:/usr/bin:/bin", "ONNXRUNTIME": wanted}, check=False
    )
    assert (done.returncode == 0) is (runs is not None)
    said = (tmp_path / "told").read_text().splitlines() if runs else []
    assert len(said) == len(runs or [])
    for each, expected in zip(said, runs or [], strict=True):
        verb, what = expected.split()
        assert f" {verb} " in each and what in each


# Lock files


def pins(lock: str) -> dict[str, set[str]]:
    """The versions of each package of a lock; several where they depend on the Python."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(
        r"^([a-z0-9-]+)==([^ ]+)", (recipes.ROOT / lock).read_text(encoding="utf-8"), re.M
    ):
        found.setdefault(name, set()).add(version)
    return found


def test_the_gpus_lock_has_what_the_extra_asks_for_and_nothing_twice() -> None:
    project = tomllib.loads((recipes.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    gpu = pins("requirements-gpu.lock")
    for wanted in map(Requirement, project["optional-dependencies"]["gpu"]):
        assert all(version in wanted.specifier for version in gpu[wanted.name]), wanted
    assert {"tensorrt-cu13-libs", "tensorrt-cu13-bindings"} <= set(gpu)
    assert not set(gpu) & set(pins("requirements.lock"))


def test_locks_agree_with_what_they_are_beside() -> None:
    project = tomllib.loads((recipes.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (backend,) = project["build-system"]["requires"]
    build = pins("requirements-build.lock")
    assert backend == f"hatchling=={min(build['hatchling'])}"
    assert build["numpy"] == pins("requirements.lock")["numpy"]
    for_cuda = pins("requirements-onnxruntime-gpu.lock")
    assert "onnxruntime" not in for_cuda and "onnxruntime-gpu" in for_cuda
    assert not set(for_cuda) & set(pins("requirements.lock"))


def shorten(lock: Path, count: int = 8) -> None:
    """Leave the first packages of a lock."""
    blocks = re.split(r"\n(?=[a-z])", lock.read_text(encoding="utf-8"))
    lock.write_text("\n".join(blocks[:count]) + "\n", encoding="utf-8")
