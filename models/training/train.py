"""Train chest-ct from the demo CT and phantoms, export it to ONNX, and plot how it went."""

from __future__ import annotations

import argparse
import copy
import hashlib
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import augment
import labels
import network
import numpy as np
import torch
import volumes
from torch import Tensor
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[2]
#: Images of the demo CT, counted from the feet, that training never sees.
HELD_OUT = (slice(14, 20), slice(29, 35))
#: Patch that the exported network takes; the manifest's tiling says the same.
TILE = (48, 112, 112)
#: Phantom seeds to train on, to follow the training with, and to judge the result with.
TRAINING, FOLLOWING, JUDGING = range(120), range(10_000, 10_008), range(20_000, 20_030)
CLASSES = len(labels.NAMES)


@dataclass
class History:
    """What was measured on the way."""

    loss: list[float] = field(default_factory=list)
    #: Step, then mean Dice per label on what is not trained on.
    steps: list[int] = field(default_factory=list)
    in_place: list[list[float]] = field(default_factory=list)
    alone: list[list[float]] = field(default_factory=list)
    phantoms: list[list[float]] = field(default_factory=list)


def batch(
    real: list[volumes.Case], made: list[volumes.Case], size: int, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Half real, half phantoms."""
    samples = []
    for index in range(size):
        pool = real if index % 2 else made
        case = pool[int(random.integers(len(pool)))]
        samples.append(augment.draw(case, random, strength=1.0 if index % 2 else 0.6))
    return torch.stack([s.image for s in samples])[:, None], torch.stack([s.target for s in samples])


def loss_of(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy plus soft Dice over the batch, without the voxels outside the volume."""
    logits = logits.float()
    entropy = functional.cross_entropy(logits, target, ignore_index=augment.IGNORE)
    valid = (target != augment.IGNORE)[:, None].float()
    truth = functional.one_hot(target.clamp(max=CLASSES - 1), CLASSES).movedim(-1, 1).float() * valid
    guess = logits.softmax(dim=1) * valid
    axes = (0, 2, 3, 4)
    dice = (2 * (guess * truth).sum(axes) + 1e3) / (guess.sum(axes) + truth.sum(axes) + 1e3)
    return entropy + 1 - dice.mean()


@torch.no_grad()
def predict(model: torch.nn.Module, hu: np.ndarray) -> np.ndarray:
    """Label a whole volume on the network's grid in one pass, padded to a multiple of 16 with its border."""
    padding = [(0, -n % 16) for n in hu.shape]
    image = augment.normalised(np.pad(hu, padding, mode="edge").astype(np.float32))[None, None]
    with torch.autocast("cpu", torch.bfloat16):
        guess = model(image.to(memory_format=torch.channels_last_3d)).argmax(dim=1)[0]
    return guess.numpy().astype(np.uint8)[tuple(slice(n) for n in hu.shape)]


def dice(guess: np.ndarray, truth: np.ndarray) -> list[float]:
    """Dice per label without the background; NaN where the truth has no voxel of the label."""
    scores = []
    for number in range(1, CLASSES):
        one, other = guess == number, truth == number
        both = 2 * float((one & other).sum()) / max(int(one.sum() + other.sum()), 1)
        scores.append(both if other.any() else float("nan"))
    return scores


def judge(model: torch.nn.Module, cases: list[volumes.Case]) -> list[float]:
    """Mean Dice per label over the cases that have it."""
    model.eval()
    scores = []
    for case in cases:
        part = slice(None) if case.judged is None else case.judged
        scores.append(dice(predict(model, case.hu)[part], case.labels[part]))
    model.train()
    return [float(value) for value in np.nanmean(scores, axis=0)]


def average_into(slow: torch.nn.Module, model: torch.nn.Module, decay: float) -> None:
    """Move the slow copy towards the model: it is the one that ships."""
    with torch.no_grad():
        for kept, new in zip(slow.state_dict().values(), model.state_dict().values(), strict=True):
            if kept.dtype.is_floating_point:
                kept.lerp_(new, 1 - decay)
            else:
                kept.copy_(new)


def train(steps: int, size: int, seed: int, minutes: float, out: Path) -> tuple[torch.nn.Module, History]:
    """Train for `steps` batches, or until the time is up; the same seed and steps give the same weights."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    started = time.monotonic()
    volume = volumes.read(ROOT / "demo" / "ct")
    truth = labels.segment(volume.array, volume.geometry.spacing)
    parts = volumes.real_cases(volume, truth, HELD_OUT)
    made, following = volumes.phantom_cases(TRAINING), volumes.phantom_cases(FOLLOWING)
    print(f"{len(made)} phantoms and the CT's labels made in {time.monotonic() - started:.0f} s", flush=True)
    model = network.UNet(CLASSES).to(memory_format=torch.channels_last_3d)
    slow = copy.deepcopy(model).eval()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps, pct_start=0.15)
    history = History()
    for step in range(1, steps + 1):
        images, targets = batch(parts["train"], made, size, random)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(images.to(memory_format=torch.channels_last_3d))
        loss = loss_of(logits, targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        average_into(slow, model, decay=min(0.99, step / (step + 10)))
        history.loss.append(loss.item())
        late = time.monotonic() - started > 60 * minutes
        if step % 80 == 0 or step == steps or late:
            history.steps.append(step)
            history.in_place.append(judge(slow, parts["held out in place"]))
            history.alone.append(judge(slow, parts["held out alone"]))
            history.phantoms.append(judge(slow, following))
            report(step, history, time.monotonic() - started)
            export(slow, out / "model.onnx")
        if late:
            print("time is up: the weights depend on this machine's speed", flush=True)
            break
    return slow.eval(), history


def report(step: int, history: History, seconds: float) -> None:
    """One line of progress."""
    recent = np.mean(history.loss[-50:])
    tracks = {"held out": history.in_place, "alone": history.alone, "phantoms": history.phantoms}
    scores = "  ".join(
        f"{name} " + " ".join(f"{v:.3f}" for v in values[-1]) for name, values in tracks.items()
    )
    print(f"step {step:4d}  {seconds:4.0f} s  loss {recent:.3f}  Dice: {scores}", flush=True)


def export(model: torch.nn.Module, path: Path) -> None:
    """Write the ONNX graph: input "image" and output "logits", patch shape fixed but for the batch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The plain memory layout, or the exporter writes transpositions.
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format).eval()
    torch.onnx.export(
        plain,
        (torch.zeros(1, 1, *TILE),),
        str(path),
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )


def seal(package: Path) -> None:
    """Write the weights' SHA-256 into the manifest beside them, where there is one."""
    manifest = package / "model.yaml"
    if manifest.exists():
        digest = hashlib.sha256((package / "model.onnx").read_bytes()).hexdigest()
        manifest.write_text(re.sub(r'sha256: "[0-9a-f]{64}"', f'sha256: "{digest}"', manifest.read_text()))


def plot(history: History, path: Path) -> None:
    """Loss and Dice curves."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4))
    left.plot(history.loss, linewidth=0.4, color="0.7")
    width = min(25, len(history.loss))
    smooth = np.convolve(history.loss, np.ones(width) / width, mode="valid")
    left.plot(np.arange(len(smooth)) + width - 1, smooth, color="k")
    left.set(xlabel="step", ylabel="cross entropy + 1 - Dice", title="Training loss", yscale="log")
    colours = ("#0072B2", "#E69F00", "#999999")
    for track, style in (("in place", "-"), ("alone", ":"), ("phantoms", "--")):
        scores = np.array(getattr(history, track.replace(" ", "_")))
        for name, colour, values in zip(labels.NAMES[1:], colours, scores.T, strict=True):
            right.plot(history.steps, values, style, color=colour, label=f"{name}, {track}")
    right.set(xlabel="step", ylabel="Dice", title="Images and phantoms not trained on", ylim=(0.5, 1.0))
    right.legend(fontsize=6, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def main() -> None:
    """Train, export, plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=30.0, help="stop early after so long")
    parser.add_argument("--out", type=Path, default=ROOT / "models" / "chest-ct")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    model, history = train(arguments.steps, arguments.batch, arguments.seed, arguments.minutes, arguments.out)
    export(model, arguments.out / "model.onnx")
    plot(history, arguments.out / "training.png")
    seal(arguments.out)


if __name__ == "__main__":
    main()
