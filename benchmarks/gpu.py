"""Networks on a GPU beside PyTorch: patches a second from host to host, and how much of the time is compute.

    python -m benchmarks.gpu [--rounds 200]

Two networks with random weights: nnU-Net's 3D U-Net (PlainConvUNet, six stages of 32 to 320 features) on patches of
128 x 128 x 128, and DenseNet121 on 32 images of 224 x 224 at a time. The peer is PyTorch as its own guides have it:
float16 by autocast, channels last, cuDNN's own choice of algorithms, page-locked memory and asynchronous copies, two
patches under way. Each engine runs in a process of its own and sees the same patches; what is timed begins with a patch
in ordinary memory and ends with the answer there. "compute" is what of that time the plan alone would take.

It needs an environment with torch for CUDA, dynamic-network-architectures, monai, and `secondread[gpu]`; and
onnxruntime-gpu in the place of onnxruntime where that engine is to run too.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import apart
from engines import gpu, half
from engines.errors import DeviceError
from engines.importing import onnx_export
from engines.whole_file import write_whole

#: What the networks see in one call.
SHAPES = {"unet": (1, 1, 128, 128, 128), "densenet121": (32, 3, 224, 224)}
#: The bars: times the peer's patches a second.
BARS = {"onnxruntime-cuda": 1.0, "tensorrt": 2.0}
COMPUTE_BAR = 0.9

_WARM = 20

Feeds = Iterable[Mapping[str, NDArray[Any]]]


def main() -> None:
    """Compare, or say why nothing was run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    try:
        print(f"{gpu.target()}\n")
    except DeviceError as error:
        print(f"not run: {error}")
        return
    print("| network | engine | patches/s | x PyTorch | bar | compute |\n|---|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory(prefix="secondread-gpu-") as folder:
        for network in SHAPES:
            _compare(network, Path(folder), rounds)


def _compare(network: str, folder: Path, rounds: int) -> None:
    peer = _child("torch", network, folder, rounds)
    print(f"| {network} | PyTorch AMP, channels last | {peer['rate']:.2f} | 1.00 | | |")
    for engine, bar in BARS.items():
        got = _child(engine, network, folder, rounds)
        if "refused" in got:
            print(f"| {network} | {engine} | not run: {got['refused']} | | {bar} | |")
            continue
        share = f"{got['compute']:.0%} (bar {COMPUTE_BAR:.0%})" if "compute" in got else ""
        ratio = got["rate"] / peer["rate"]
        print(f"| {network} | {got['said']} | {got['rate']:.2f} | {ratio:.2f} | {bar} | {share} |")


def _child(part: str, network: str, folder: Path, rounds: int) -> dict[str, Any]:
    return apart.child(sys.executable, "benchmarks.gpu", part, 4, network, folder, rounds)


def _module(name: str) -> Any:
    """The network, the same each time."""
    import torch

    torch.manual_seed(0)
    if name == "densenet121":
        from monai.networks.nets import DenseNet121

        return DenseNet121(spatial_dims=2, in_channels=3, out_channels=14).eval()
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    return PlainConvUNet(
        1,
        6,
        (32, 64, 128, 256, 320, 320),
        torch.nn.Conv3d,
        3,
        (1, 2, 2, 2, 2, 2),
        (2,) * 6,
        3,
        (2,) * 5,
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    ).eval()


def _patches(network: str, rounds: int) -> Iterator[dict[str, NDArray[np.float32]]]:
    """The same few patches in turn: making noise takes longer than a network."""
    rng = np.random.default_rng(0)
    few = [rng.normal(0, 1, SHAPES[network]).astype(np.float32) for _ in range(4)]
    for number in range(rounds):
        yield {"image": few[number % len(few)]}


def _weights(network: str, folder: str) -> bytes:
    """The network as ONNX, exported once."""
    path = Path(folder) / f"{network}.onnx"
    if not path.exists():
        content, _ = onnx_export.export(
            _module(network), {"image": SHAPES[network]}, output_name="out", where=network
        )
        write_whole(path, content)
    return path.read_bytes()


def _timed(answers: Iterator[Any], network: str) -> dict[str, Any]:
    """Patches a second behind the first ones."""
    count, began = -_WARM, 0.0
    for _ in answers:
        count += 1
        if count == 0:
            began = time.perf_counter()
    return {"rate": count * SHAPES[network][0] / (time.perf_counter() - began)}


def run_torch(_threads: int, network: str, _folder: str, rounds: str) -> dict[str, Any]:
    """PyTorch."""
    return _timed(_by_torch(network, _patches(network, int(rounds) + _WARM)), network)


def _by_torch(network: str, feeds: Feeds) -> Iterator[Any]:
    """Copies on a stream of their own, two patches under way."""
    import torch

    torch.backends.cudnn.benchmark = True
    layout = torch.channels_last_3d if network == "unet" else torch.channels_last
    module = _module(network).cuda().to(memory_format=layout)
    streams = deque(torch.cuda.Stream() for _ in range(2))
    pinned = deque(torch.empty(SHAPES[network], pin_memory=True) for _ in range(2))
    under_way: deque[tuple[Any, Any]] = deque()
    for feed in feeds:
        if len(under_way) == 2:
            stream, answer = under_way.popleft()
            stream.synchronize()
            yield answer.numpy()
        streams.rotate()
        pinned.rotate()
        pinned[0].numpy()[...] = feed["image"]
        with torch.inference_mode(), torch.cuda.stream(streams[0]), torch.autocast("cuda", torch.float16):
            given = pinned[0].cuda(non_blocking=True).to(memory_format=layout)
            found = module(given)
            found = found[0] if isinstance(found, list | tuple) else found
            host = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
            host.copy_(found, non_blocking=True)
        under_way.append((streams[0], host))
    for stream, answer in under_way:
        stream.synchronize()
        yield answer.numpy()


def run_tensorrt(_threads: int, network: str, folder: str, rounds: str) -> dict[str, Any]:
    """TensorRT in float16, through the runner that serves."""
    from engines import build, cuda, trt

    device = cuda.device()
    weights = half.converted(_weights(network, folder), "float16")
    with device.current():
        plan = build.build(
            weights,
            shapes={"image": SHAPES[network]},
            timing=Path(folder) / "timing.cache",
            workspace=build.workspace(device.memory()[0]),
        )
    # What a patch's compute takes when nothing else is on the device.
    with trt.TensorRTRunner(plan, device, precision="float16", lanes=1) as alone:
        for _ in alone.infer_each(_patches(network, _WARM)):
            pass
        compute = alone.seconds["compute"] / alone.patches
    with trt.TensorRTRunner(plan, device, precision="float16") as runner:
        got = _timed(runner.infer_each(_patches(network, int(rounds) + _WARM)), network)
        share = compute * got["rate"] / SHAPES[network][0]
        return {**got, "said": runner.description, "compute": share}


def run_onnxruntime(threads: int, network: str, folder: str, rounds: str) -> dict[str, Any]:
    """ONNX Runtime on CUDA in float16, through the runner that serves."""
    from engines import ort_gpu

    wish = ort_gpu.Wish(provider=ort_gpu.CUDA, precision="float16", threads=threads, channels_last=True)
    try:
        runner = ort_gpu.ProviderRunner(_weights(network, folder), wish, shapes={"image": SHAPES[network]})
    except DeviceError as error:
        return {"refused": str(error)}
    with runner:
        answers = runner.infer_each(_patches(network, int(rounds) + _WARM))
        return {**_timed(answers, network), "said": runner.description}


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in ("torch", *BARS):
        apart.serve({"torch": run_torch, "tensorrt": run_tensorrt, "onnxruntime-cuda": run_onnxruntime})
    else:
        main()
