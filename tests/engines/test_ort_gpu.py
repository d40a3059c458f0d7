"""ONNX Runtime's execution providers: the same code on the CPU's provider, and what is said where there is no GPU."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state as states

from engines import loader, ort, ort_gpu, package
from engines.errors import DeviceError, DeviceFull, DeviceLost, InputMismatch, PlanError, RunnerError
from engines.manifest_gpu import Precision
from engines.plans import Plans
from tests.engines import build, nets

#: What runs the GPU's code here: only the provider's name and its device differ.
ON_CPU = ort_gpu.Provider(engine="onnxruntime-cpu", name="CPUExecutionProvider", device="cpu")
PATCH = (2, 1, 8, 16, 16)


def _wish(precision: Precision = "float32", **changes: Any) -> ort_gpu.Wish:
    return ort_gpu.Wish(**{"provider": ON_CPU, "precision": precision, "threads": 1} | changes)


def _images(count: int, shape: tuple[int, ...] = PATCH) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(np.float32) for _ in range(count)]


def _alike(weights: bytes, shapes: dict[str, tuple[int, ...]], calls: list[dict[str, NDArray[Any]]]) -> None:
    """Bound memory gives, call after call, the bits of the plain run."""
    with (
        ort.ONNXRuntimeRunner(weights, shapes=shapes, threads=1) as plain,
        ort_gpu.ProviderRunner(weights, _wish(), shapes=shapes) as bound,
    ):
        for feeds in calls:
            expected, got = plain.infer(feeds), bound.infer(feeds)
            assert list(got) == list(expected)
            for name, values in expected.items():
                assert got[name].dtype == values.dtype
                np.testing.assert_array_equal(got[name], values)


def test_bound_memory_gives_the_bits_of_a_plain_run() -> None:
    _alike(build.network(), {"image": PATCH}, [{"image": image} for image in _images(3)])


def test_arrays_that_are_not_contiguous_are_fed_by_their_values() -> None:
    turned = [image.transpose(0, 1, 2, 4, 3) for image in _images(2)]
    _alike(build.network(), {"image": PATCH}, [{"image": image} for image in turned])


def test_outputs_whose_length_the_image_decides() -> None:
    # Given a detector that finds none, five and two voxels
    images = [np.zeros((1, 1, 4, 4, 4), np.float32) for _ in range(3)]
    images[1].flat[:5] = 1
    images[2].flat[7:9] = 2
    weights = nets.bright_spots(0.5, (1, 1, 1))
    _alike(weights, {"image": (1, 1, 4, 4, 4)}, [{"image": image} for image in images])


def test_inputs_whose_shape_changes_from_call_to_call() -> None:
    # Given points of a person, none of them at first
    image = _images(1, (1, 1, 4, 4, 4))[0]
    points = [np.ones((1, count, 2), np.float32) for count in (0, 3, 1, 3)]
    _alike(nets.prompted(), {"image": image.shape}, [{"image": image, "points": one} for one in points])


def test_a_number_without_axes_and_truth_values() -> None:
    nodes = [
        helper.make_node("ReduceMax", ["image"], ["top"], keepdims=0),
        helper.make_node("Greater", ["image", "zero"], ["bright"]),
    ]
    outputs = [nets.info("top", ()), nets.info("bright", nets.SPACE[5], TensorProto.BOOL)]
    weights = nets.graph(
        nodes, [nets.tensor("zero", np.array(0, np.float32))], [nets.info("image", nets.SPACE[5])], outputs
    )
    _alike(weights, {"image": PATCH}, [{"image": image} for image in _images(2)])


def test_a_network_whose_axes_are_named_wrongly_runs_all_the_same() -> None:
    # Given an output that is said to be as long as the input, and is half of it
    nodes = [helper.make_node("MaxPool", ["image"], ["out"], kernel_shape=[2] * 3, strides=[2] * 3)]
    weights = nets.graph(nodes, [], [nets.info("image", nets.SPACE[5])], [nets.info("out", nets.SPACE[5])])
    _alike(weights, {"image": PATCH}, [{"image": image} for image in _images(2)])


def test_what_one_call_answers_does_not_change_under_the_reader_before_the_next() -> None:
    first, second = _images(2)
    with ort_gpu.ProviderRunner(build.network(), _wish(), shapes={"image": PATCH}) as runner:
        kept = runner.infer({"image": first})["logits"].copy()
        runner.infer({"image": second})
        np.testing.assert_array_equal(runner.infer({"image": first})["logits"], kept)


def test_the_runner_says_what_it_is_and_what_it_takes() -> None:
    with ort_gpu.ProviderRunner(build.network(), _wish("float16"), shapes={"image": PATCH}) as runner:
        assert runner.description == f"onnxruntime-cpu {onnxruntime.__version__} CPU float16"
        assert [str(spec) for spec in runner.inputs] == ["image: float32 (2, 1, 8, 16, 16)"]
        assert [str(spec) for spec in runner.outputs] == ["logits: float32 (2, 3, 8, 16, 16)"]
        with pytest.raises(InputMismatch, match="axis 0 differs"):
            runner.infer({"image": _images(1)[0][:1]})
    with pytest.raises(RunnerError, match="closed"):
        runner.infer({"image": _images(1)[0]})


def test_half_precision_is_near() -> None:
    weights, (image,) = build.network(), _images(1)
    with ort.ONNXRuntimeRunner(weights, shapes={"image": PATCH}, threads=1) as plain:
        expected = plain.infer({"image": image})["logits"]
    with ort_gpu.ProviderRunner(weights, _wish("float16"), shapes={"image": PATCH}) as runner:
        got = runner.infer({"image": image})["logits"]
    assert got.dtype == np.float32
    far = np.abs(got - expected).max() / np.ptp(expected)
    assert 1e-5 < far < 1e-3


def test_a_refused_network_is_told_as_ever() -> None:
    with pytest.raises(RunnerError, match="Levitate"):
        ort_gpu.ProviderRunner(build.network(op="Levitate"), _wish(), shapes={"image": PATCH})
    huge = nets.affine(slope=1e6)
    with pytest.raises(PlanError, match="weight w holds 1e"):
        ort_gpu.ProviderRunner(huge, _wish("float16"), shapes={"image": PATCH})


def test_bfloat16_that_the_provider_has_no_kernels_of_says_what_to_set() -> None:
    with pytest.raises(
        PlanError, match=r"Could not find an implementation for Conv\(22\).*set gpu\.precision: float16"
    ):
        ort_gpu.ProviderRunner(build.network(), _wish("bfloat16"), shapes={"image": PATCH})


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this ONNX Runtime has CUDA"
)
@pytest.mark.parametrize("engine", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_an_onnx_runtime_without_the_provider_says_what_to_install(
    tmp_path: Path, engine: loader.Engine
) -> None:
    opened = package.open_package(build.write(tmp_path / "model", build.network()))
    kept = Plans(folder=tmp_path / "plans")
    with pytest.raises(
        DeviceError, match=r"has no \w+ExecutionProvider: put onnxruntime-gpu in its place: pip"
    ):
        loader.open_runner(opened, engine=engine, kept=kept)


@pytest.fixture
def unstartable(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ONNX Runtime as onnxruntime-gpu is without CUDA's libraries: it lists providers that it cannot start.

    Of onnxruntime-gpu 1.31.1 on a machine without a driver: `get_available_providers` names all three, a session that
    asks for CUDA is on the CPU, and one that asks for TensorRT raises what `start` raises where it must not fall back.
    """
    real = onnxruntime.InferenceSession

    def start(graph: bytes, *, sess_options: Any, providers: Any, enable_fallback: int) -> Any:
        assert enable_fallback == 0
        if providers[0][0] == "TensorrtExecutionProvider":
            raise RuntimeError(
                "/onnxruntime_src/onnxruntime/python/onnxruntime_pybind_state.cc:729 void onnxruntime::python::"
                "RegisterTensorRTPluginsAsCustomOps(PySessionOptions&, const onnxruntime::ProviderOptions&) Please install "
                "TensorRT libraries as mentioned in the GPU requirements page, make sure they're in the PATH or "
                "LD_LIBRARY_PATH, and that your GPU is supported."
            )
        return real(graph, sess_options=sess_options, providers=["CPUExecutionProvider"])

    def preload() -> None:
        sys.stdout.write(
            "Failed to load libcublas.so.13: libcublas.so.13: cannot open shared object file: No such file\n"
        )
        sys.stdout.write(
            "Please follow https://onnxruntime.ai/docs/install/#cuda-and-cudnn to install CUDA.\n"
        )

    monkeypatch.setattr(onnxruntime, "preload_dlls", preload)
    monkeypatch.setattr(onnxruntime, "InferenceSession", start)
    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)


@pytest.mark.usefixtures("unstartable")
@pytest.mark.parametrize(
    ("engine", "needs"),
    [("onnxruntime-cuda", "cuDNN 9: pip"), ("onnxruntime-tensorrt", "cuDNN 9, and TensorRT 10: pip")],
)
def test_a_provider_that_cannot_be_started_never_runs_on_the_cpu(
    tmp_path: Path, engine: loader.Engine, needs: str
) -> None:
    opened = package.open_package(build.write(tmp_path / "model", build.network()))
    said = io.StringIO()
    with (
        pytest.raises(
            DeviceError,
            match=rf"cannot start its \w+ and would go on on the CPU .libcublas.so.13 cannot be found.: .*{needs}",
        ),
        contextlib.redirect_stdout(said),
    ):
        loader.open_runner(opened, engine=engine, precision="float32", unverified=True)
    assert said.getvalue() == ""


#: As ONNX Runtime words them (cuda_call.cc, bfc_arena.cc), and what they are.
FAILURES = {
    "Non-zero status code returned while running Conv node. Name:'Conv_3' Status Message: "
    "/onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal"
    "(size_t, bool, onnxruntime::Stream*) Failed to allocate memory for requested buffer of size 4585490524": DeviceFull,
    "/core/providers/cuda/cuda_call.cc:121 onnxruntime::CudaCall CUDA failure 2: out of memory ; GPU=0 ; "
    "hostname=ward-7 ; file=cuda_allocator.cc ; line=47 ; expr=cudaMalloc((void**)&p, size);": DeviceFull,
    "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; hostname=ward-7 ; expr=cublasCreate(&h);": DeviceFull,
    "Available memory of 1048576 is smaller than requested bytes of 2097152": DeviceFull,
    "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=ward-7 ; line=12": DeviceLost,
    "CUDA failure 719: unspecified launch failure ; GPU=0 ; hostname=ward-7 ; line=12 ; expr=x": DeviceLost,
    "CUDA failure 214: uncorrectable ECC error encountered ; GPU=0 ; hostname=ward-7 ; line=12": DeviceLost,
    "CUDA failure 100: no CUDA-capable device is detected ; GPU=-1 ; hostname=ward-7 ; line=280": DeviceError,
    "CUDA failure 900: operation not permitted when stream is capturing ; GPU=0 ; hostname=ward-7": DeviceError,
    "CUDNN failure 5003: CUDNN_STATUS_EXECUTION_FAILED_CUDART ; GPU=0 ; hostname=ward-7 ; line=1": DeviceError,
    "Non-zero status code returned while running Reshape node. Name:'reshape 700'": RunnerError,
}  # fmt: skip


@pytest.mark.parametrize(
    "text", FAILURES, ids=[f"{one.__name__} {n}" for n, one in enumerate(FAILURES.values())]
)
def test_a_failure_on_the_device_is_told_by_its_words(text: str) -> None:
    found = ort_gpu.meant(
        states.RuntimeException(f"[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : {text}"), "here"
    )
    assert type(found) is FAILURES[text]
    assert str(found).startswith("here: ")
    # Then the machine's own name stays out of it
    assert "ward-7" not in str(found)


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        (
            "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=x",
            DeviceLost,
            "float32: the GPU is lost to this process: CUDA failure 700: an illegal",
        ),
        # The same network may do it on another engine
        ("Non-zero status code while running Reshape node", DeviceError, "float32: .*Reshape"),
    ],
)
def test_a_failure_while_it_runs_is_the_device_s(
    monkeypatch: pytest.MonkeyPatch, text: str, kind: type[DeviceError], said: str
) -> None:
    with ort_gpu.ProviderRunner(build.network(), _wish(), shapes={"image": PATCH}) as runner:

        def fail(*_: Any) -> None:
            raise states.Fail(text)

        monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", fail)
        with pytest.raises(kind, match=said):
            runner.infer({"image": _images(1)[0]})


def test_the_options_of_the_providers(tmp_path: Path) -> None:
    wish = _wish("bfloat16", provider=ort_gpu.TENSORRT, megabytes=1.5, cache=tmp_path)
    (first, tensorrt), (second, cuda) = ort_gpu.providers(b"graph", wish, recorded=True)
    assert (first, second) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert cuda["gpu_mem_limit"] == tensorrt["trt_max_workspace_size"] == "1572864"
    # TF32 keeps 10 bits of a number: no float32 then
    assert cuda["use_tf32"] == "0"
    assert (tensorrt["trt_fp16_enable"], tensorrt["trt_bf16_enable"]) == ("0", "1")
    # One graph is recorded, by the provider that runs it
    assert (tensorrt["trt_cuda_graph_enable"], cuda["enable_cuda_graph"]) == ("1", "0")


def test_engines_of_other_weights_are_kept_apart(tmp_path: Path) -> None:
    # Given two networks that differ in their weights alone, which ONNX Runtime's own file names do not tell apart
    wish = _wish("float16", provider=ort_gpu.TENSORRT, cache=tmp_path)
    options = [ort_gpu.providers(build.network(seed=seed), wish, recorded=False)[0][1] for seed in (1, 2)]
    folders = [Path(one["trt_engine_cache_path"]) for one in options]
    assert folders[0] != folders[1]
    assert all(folder.is_dir() for folder in folders)
    # What TensorRT measured on the GPU serves both
    assert {one["trt_timing_cache_path"] for one in options} == {str(tmp_path)}
