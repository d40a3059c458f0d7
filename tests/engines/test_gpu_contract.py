"""The GPU code is held to the real TensorRT, pycuda and CUDA on machines where they cannot run (decision 0150).

TensorRT's Python bindings import against libraries that give null pointers, pycuda against a driver without a GPU.
What they offer is compared with typings/, mypy compares our code with typings/, and the doubles that our tests run
against are compared with it too.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.contract import (
    doubles,
    environment,
    report,
    selection,
    surface,
    typings,
    uses,
    write_tensorrt,
)

needs_libraries = pytest.mark.peer("gpu libraries")

#: Lines of the typings as TensorRT 10.13 would have them: a tensor's type may be set, and an error code's name is a method.
ONLY_IN_10 = {
    "    @dtype.setter",
    "    def dtype(self, value: DataType) -> None: ...",
    "    name: ClassVar[instancemethod]",
}

SAMPLE = """
from __future__ import annotations
import numpy as np
import tensorrt as trt
from pycuda import driver
from pycuda.driver import Stream as Queue

class Progress(trt.IProgressMonitor):
    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None: ...
    def phase_finish(self, phase_name: str) -> None: ...
    def step_complete(self, phase_name: str, step: int) -> bool:
        return True

def built(logger: trt.ILogger, shape: tuple[int, ...]) -> bytes:
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    assert network and config and profile
    config.progress_monitor = Progress()
    profile.set_shape("image", shape, shape, shape)
    plan = builder.build_serialized_network(network, config)
    assert plan
    memory = driver.mem_alloc(plan.nbytes)
    driver.memcpy_htod_async(memory, np.zeros(3), Queue(0))
    return bytes(plan)
"""
REACHED = {
    "pycuda.driver:Stream",
    "pycuda.driver:mem_alloc",
    "pycuda.driver:memcpy_htod_async",
    "tensorrt:Builder",
    "tensorrt:ILogger",
    "tensorrt:IProgressMonitor",
    "tensorrt:NetworkDefinitionCreationFlag",
    "tensorrt:NetworkDefinitionCreationFlag.STRONGLY_TYPED",
}
CALLED = {
    "tensorrt:Builder.build_serialized_network",
    "tensorrt:Builder.create_builder_config",
    "tensorrt:Builder.create_network",
    "tensorrt:Builder.create_optimization_profile",
    "tensorrt:IBuilderConfig.progress_monitor",
    "tensorrt:IHostMemory.nbytes",
    "tensorrt:IOptimizationProfile.set_shape",
}
PROBE = """
import tensorrt_bindings as trt
assert trt.__version__.startswith("{version}."), trt.__version__
logger = trt.Logger(trt.Logger.ERROR)
for kind in (trt.Builder, trt.Runtime):
    try:
        kind(logger)
    except TypeError as error:
        assert "nullptr" in str(error), error
    else:
        raise AssertionError(f"{{kind}} needs no device")
tensor = trt.PluginTensorDesc()
for shape in ((1, -1), [1, -1], trt.Dims((1, -1))):
    tensor.dims = shape
    assert tuple(tensor.dims) == (1, -1), shape
class Forgetful(trt.IProgressMonitor):
    def __init__(self): pass
try:
    Forgetful()
except TypeError as error:
    assert "__init__" in str(error), error
else:
    raise AssertionError("a monitor needs no __init__ of its base")
assert trt.init_libnvinfer_plugins(logger, "") is False
"""


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    path = tmp_path / "sample_of_gpu_code.py"
    path.write_text(SAMPLE)
    return path


@needs_libraries
@pytest.mark.parametrize("version", [10, 11])
def test_the_real_bindings_say_there_is_no_device_and_take_shapes_as_python_has_them(version: int) -> None:
    environment.run_tensorrt(version, "-c", PROBE.format(version=version))


@needs_libraries
def test_the_typings_of_tensorrt_are_what_its_bindings_say() -> None:
    ruff = [
        str(Path(sys.executable).parent / "ruff"),
        "format",
        "--stdin-filename",
        "typings/tensorrt.pyi",
        "-",
    ]
    written = write_tensorrt.written(environment.tensorrt(11))
    formatted = subprocess.run(ruff, input=written, capture_output=True, text=True, check=True, cwd=uses.ROOT)
    assert typings.FILES["tensorrt"].read_text(encoding="utf-8") == formatted.stdout, "run scripts/typings"


@needs_libraries
def test_tensorrt_10_has_all_of_it_with_the_same_signatures() -> None:
    older = write_tensorrt.written(environment.tensorrt(10)).splitlines()
    newer = write_tensorrt.written(environment.tensorrt(11)).splitlines()
    assert set(newer) - set(older) == set()
    assert set(older) - set(newer) == ONLY_IN_10
    for version in (10, 11):
        assert surface.lacking(typings.of("tensorrt"), environment.tensorrt(version)) == []


@needs_libraries
def test_what_is_said_beyond_the_signatures_is_said_of_names_that_are_there() -> None:
    real = environment.tensorrt(11)
    selected = {
        f"{owner}.{name}" if owner else name for owner, names in selection.NAMES.items() for name in names
    }
    assert {*selection.MAY_BE_NONE, *selection.PARAMETERS, *selection.RETURNS} <= selected
    for path, changed in selection.PARAMETERS.items():
        names = {one["name"] for overload in real[path]["overloads"] for one in overload["parameters"]}
        assert set(changed) <= names, path


@needs_libraries
@pytest.mark.parametrize("module", ["pycuda", "pycuda.driver", "cuda.bindings.driver"])
def test_the_typings_of_cuda_are_in_the_real_ones(module: str) -> None:
    stub = typings.of(module)
    real = environment.pycuda(module) if module.startswith("pycuda") else environment.cuda_bindings(module)
    assert stub
    assert surface.lacking(stub, real) == []


@needs_libraries
def test_a_driver_s_errors_become_these_classes_of_pycuda() -> None:
    found = environment.pycuda_errors()
    # cuda.h: out of memory, no device, a failed launch, a driver too old for pycuda, an illegal address, unknown.
    expected = {
        2: "MemoryError",
        100: "RuntimeError",
        719: "LaunchError",
        35: "LogicError",
        700: "LogicError",
        999: "Error",
    }
    assert {code: found[code] for code in expected} == expected
    assert set(found.values()) <= set(typings.of("pycuda.driver"))


@needs_libraries
@pytest.mark.parametrize("what", ["absent", "full", "lost", "used"])
def test_the_device_s_code_runs_on_the_real_pycuda_and_a_driver_without_a_gpu(what: str) -> None:
    environment.run_pycuda("-m", "tests.support.contract.device_probe", what)


@needs_libraries
def test_every_name_that_the_engines_use_is_in_the_real_libraries() -> None:
    files = uses.importing(uses.ROOT / "engines")
    assert files
    names = report.used(files)
    wrong = report.missing(names, report.known())
    sys.stdout.write("\n".join(report.sentences(files, names, wrong)))
    assert wrong == []


@pytest.mark.parametrize("module", list(typings.FILES))
def test_the_double_offers_nothing_that_the_real_one_does_not(module: str) -> None:
    assert doubles.invented(doubles.offered(module), typings.of(module)) == []


def test_names_are_found_however_the_module_is_imported(sample: Path) -> None:
    assert uses.importing(sample.parent) == [sample]
    assert uses.reached(sample) == REACHED
    dotted = sample.with_name("dotted.py")
    dotted.write_text(
        "import pycuda.driver\nimport tensorrt\npycuda.driver.Device.count()\ntensorrt.DataType.HALF.itemsize\n"
    )
    assert uses.reached(dotted) == {
        "pycuda.driver:Device",
        "pycuda.driver:Device.count",
        "tensorrt:DataType",
        "tensorrt:DataType.HALF",
        "tensorrt:DataType.HALF.itemsize",
    }


def test_what_is_used_of_objects_is_found_by_their_types(sample: Path) -> None:
    assert uses.called([sample]) == CALLED
    names = report.used([sample])
    assert set(names) == REACHED | CALLED
    assert (
        report.missing(
            names, {module: {"typings": typings.of(module)} for module in ("tensorrt", "pycuda.driver")}
        )
        == []
    )


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("trt.Builder(logger)", "trt.Builder()", 'Missing positional argument "logger"'),
        ("config.progress_monitor", "config.progress", 'has no attribute "progress"'),
        ("assert plan\n", "\n", 'Item "None" of "IHostMemory | None" has no attribute "nbytes"'),
        ("Queue(0))", "queue=Queue(0))", 'Unexpected keyword argument "queue"'),
        ("mem_alloc(plan", "mem_alloc(size=plan", 'Unexpected keyword argument "size"'),
        ("-> bool:\n        return True", "-> None: ...", 'incompatible with return type "bool"'),
    ],
)
def test_a_call_that_the_real_one_refuses_is_an_error_of_types(
    sample: Path, right: str, wrong: str, said: str
) -> None:
    text = sample.read_text()
    assert right in text
    sample.write_text(text.replace(right, wrong, 1))
    with pytest.raises(AssertionError) as raised:
        uses.called([sample])
    assert said in str(raised.value)


def test_a_name_that_one_of_them_lacks_is_named() -> None:
    stub = typings.of("tensorrt")
    older = {path: entry for path, entry in stub.items() if path != "BuilderFlag.TF32"}
    names = [
        "tensorrt:BuilderFlag.TF32",
        "tensorrt:BuilderFlag.TF64",
        "tensorrt:DataType.HALF.itemsize",
        "tensorrt:Logger.ERROR",
    ]
    assert report.missing(names, {"tensorrt": {"10": older, "11": stub}}) == [
        "tensorrt:BuilderFlag.TF32 is not in 10",
        "tensorrt:BuilderFlag.TF64 is not in 10, 11",
    ]


def _functions(**parameters: str) -> surface.Surface:
    """Functions by their parameters: "a b=" is one that must be given and one that may."""
    return {
        name: {
            "kind": "function",
            "overloads": [
                {
                    "parameters": [
                        {"name": one.removesuffix("="), "required": not one.endswith("=")}
                        for one in text.split()
                    ]
                }
            ],
        }
        for name, text in parameters.items()
    }


def test_signatures_differ_where_a_call_is_taken_by_only_one() -> None:
    real = _functions(same="a b=", unnamed="arg0", more="a b", stars="a *args **kwargs", fewer="a")
    fitting = _functions(same="a", unnamed="arg1", more="a b", stars="a *args **kwargs", fewer="a")
    assert surface.lacking(fitting, real) == []
    wrong = _functions(same="b a=", unnamed="size", more="a", fewer="a b=", absent="a")
    assert surface.lacking(wrong, real) == [
        "absent: there is no such name",
        "fewer(a, b=): it takes (a)",
        "more(a): it takes (a, b)",
        "same(b, a=): it takes (a, b=)",
        "unnamed(size): it takes (_)",
    ]
    assert surface.lacking(_functions(more="a b="), real) == ["more(a, b=): it takes (a, b)"]


def test_a_double_may_have_less_than_the_real_one_but_nothing_of_its_own(tmp_path: Path) -> None:
    package = tmp_path / "tensorrt"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from enum import IntEnum\n\nfrom tensorrt._parts import Builder, Dims, ICudaEngine\n\n\nclass TensorIOMode(IntEnum):\n    INPUT = 1\n    OUTPUT = 2\n\n\n__version__ = '11.4.0'\n"
    )
    (package / "_parts.py").write_text(
        "import numpy as np\n\n\nclass Builder:\n    def __init__(self, logger): ...\n    def create_network(self, flags=0): ...\n    @property\n"
        "    def max_threads(self): ...\n    def _own(self): ...\n\n\nclass ICudaEngine:\n    num_layers = 3\n    def __init__(self, made_of): ...\n\n\n"
        "class Dims:\n    def __init__(self, shape=()): ...\n    def __getitem__(self, index, /): ...\n    def __len__(self): ...\n"
    )
    assert doubles.invented(doubles.offered("tensorrt", tmp_path), typings.of("tensorrt")) == []
    with (package / "__init__.py").open("a") as file:
        file.write(
            "class Logger:\n    def log(self, severity, message): ...\n    def shout(self): ...\n\n\nclass Sorcerer: ...\n"
        )
    assert doubles.invented(doubles.offered("tensorrt", tmp_path), typings.of("tensorrt")) == [
        "Logger.log(severity, message): it takes (severity, msg)",
        "Logger.shout: there is no such name",
        "Sorcerer: there is no such name",
    ]
