"""The inputs of a network from the series that it looks at: all on the grid of the first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines import body, moments, pad, preprocess, registration, steps
from engines.errors import RoleError, VolumeError
from engines.intensity import Scaling
from engines.manifest import Manifest
from engines.manifest_inputs import Input
from engines.manifest_steps import Crop
from engines.volume import WHOLE, Geometry, Region, Volume


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What a network sees."""

    #: By the graph's input name: float32 (channels, slices, rows, columns), normalised, on `geometry`.
    arrays: Mapping[str, NDArray[np.float32]]
    #: The model grid.
    geometry: Geometry
    #: The grid of the first series, its axes in the model's order and direction.
    source: Geometry
    #: What was done to the intensities of the first series.
    scaling: Scaling
    #: What of `source` the model grid covers; the rest is background.
    region: Region = WHOLE
    #: What of the model grid is not padding.
    inner: Region = WHOLE
    #: What of `region` is not zero in any series, and its holes; None where nobody wants it.
    body: NDArray[np.bool_] | None = None


def prepare(
    manifest: Manifest,
    volume: Volume,
    others: Mapping[str, Volume],
    *,
    labelled: NDArray[np.bool_] | None = None,
    threads: int = 1,
) -> Seen:
    """Preprocess `volume`, the first input's, and `others`, by role, onto its model grid.

    Each is looked up in `others` once and let go before the next, so that a mapping may read it just then; but
    where all are looked at together, by a crop or to find the body, all are held.
    Planar images are not registered: each is brought to its own size. Each moment of a series is a channel.
    `labelled` are the voxels of `volume` where an earlier model found something, if the body is to be told from what
    is around it: they are of it.

    Raises VolumeError where one of them cannot be used: a RoleError, which names it, where there are several.
    """
    lacking = [entry.called for entry in manifest.inputs[1:] if entry.called not in others]
    if lacking:
        raise RoleError(f"the model needs further series: {', '.join(lacking)}", roles=tuple(lacking))
    held = (
        {entry.called: others[entry.called] for entry in manifest.inputs[1:]} if _are_held(manifest) else {}
    )
    together = _together(manifest, volume, held)
    others = held or others
    with _about(manifest, manifest.reference), _at(0, manifest.reference):
        first = preprocess.prepare(
            together[0],
            manifest.reference,
            beside=_beside(together[0], together),
            labelled=labelled,
            threads=threads,
        )
    channels = _Channels(manifest)
    channels.put(manifest.reference, first.array)
    for place, own in enumerate(together[1 : manifest.reference.channels], start=1):
        with _about(manifest, manifest.reference), _at(place, manifest.reference):
            array = _moment(
                manifest.reference, own, together, first=first, labelled=labelled, threads=threads
            )
        channels.put(manifest.reference, array)
        del array
    for entry in map(manifest.on_the_first, manifest.inputs[1:]):
        _fill(channels, manifest, entry, others, together, first=first, labelled=labelled, threads=threads)
    return Seen(
        arrays=channels.arrays,
        geometry=first.geometry,
        source=first.source,
        scaling=first.scaling,
        region=first.region,
        inner=first.inner,
        body=None if labelled is None else _body(manifest, together, first),
    )


def _body(manifest: Manifest, together: Sequence[Volume], first: preprocess.Prepared) -> NDArray[np.bool_]:
    """What is inside the body, in the model's axes."""
    if first.inside is not None:
        return first.inside
    series = [together[0], *_beside(together[0], together)]
    return body.inside([preprocess.turn(one, manifest.reference).array[first.region] for one in series])


def _together(manifest: Manifest, volume: Volume, held: Mapping[str, Volume]) -> list[Volume]:
    """The moments of the first series, then those of the further series that are held."""
    with _about(manifest, manifest.reference):
        found = moments.each(volume, manifest.reference)
    for entry in manifest.inputs[1:] if held else ():
        with _about(manifest, entry):
            found += moments.each(held[entry.called], entry)
    return found


def _beside(own: Volume, together: Sequence[Volume]) -> list[Volume]:
    """What a crop of `own` looks at too: all others that are held, and on its very grid."""
    return [
        other
        for other in together
        if other.array is not own.array and other.geometry.agrees_with(own.geometry)
    ]


def _are_held(manifest: Manifest) -> bool:
    """Whether all series are looked at together: a crop does that, and who looks for the body in them."""
    filled = any(getattr(entry.intensity, "nonzero", False) == "filled" for entry in manifest.inputs)
    among = any(stage.use.kind == "channels" and stage.use.nonzero for stage in manifest.after)
    return filled or among or any(isinstance(step, Crop) for step in manifest.reference.steps)


def _moment(
    entry: Input,
    own: Volume,
    together: Sequence[Volume],
    *,
    first: preprocess.Prepared,
    labelled: NDArray[np.bool_] | None,
    threads: int,
) -> NDArray[np.float32]:
    """A further moment, or a channel on the very grid of the first: what was done to that, and cropped as that was."""
    return preprocess.prepare(
        own,
        entry,
        beside=_beside(own, together),
        region=first.region,
        inside=first.inside,
        labelled=labelled,
        threads=threads,
    ).array


def _fill(
    channels: _Channels,
    manifest: Manifest,
    entry: Input,
    others: Mapping[str, Volume],
    together: Sequence[Volume],
    *,
    first: preprocess.Prepared,
    labelled: NDArray[np.bool_] | None,
    threads: int,
) -> None:
    """The channels of a further series, which is let go on return."""
    with _about(manifest, entry):
        for place, own in enumerate(moments.each(others[entry.called], entry)):
            with _at(place, entry):
                if entry.sampling == "nnunet":
                    array = _stacked(
                        manifest, entry, own, together, first=first, labelled=labelled, threads=threads
                    )
                else:
                    array = _further(manifest, entry, own, first=first, threads=threads)
            if manifest.reference.padding is not None:
                array = pad.alike(array, manifest.reference.padding)
            channels.put(entry, array)
            del array


def _stacked(
    manifest: Manifest,
    entry: Input,
    own: Volume,
    together: Sequence[Volume],
    *,
    first: preprocess.Prepared,
    labelled: NDArray[np.bool_] | None,
    threads: int,
) -> NDArray[np.float32]:
    """A further channel of an nnU-Net: on the very grid of the first, cropped as that was.

    Raises RoleError where it lies on another grid: nnU-Net takes channels that are registered and resampled.
    """
    if not own.geometry.agrees_with(together[0].geometry):
        roles = (manifest.reference.called, entry.called)
        raise RoleError(
            f"{entry.called} is not on the grid of {manifest.reference.called}, as nnU-Net's channels are; "
            "send series that are resampled to each other",
            roles=roles,
        )
    _require_one_frame(manifest, entry, own.geometry, first.source)
    return _moment(entry, own, together, first=first, labelled=labelled, threads=threads)


def _further(
    manifest: Manifest, entry: Input, volume: Volume, *, first: preprocess.Prepared, threads: int
) -> NDArray[np.float32]:
    """One further input, normalised: on the model grid, or by itself where it is planar."""
    if entry.planar:
        return preprocess.prepare(volume, entry, threads=threads).array
    preprocess.check(volume, entry, upright=False)
    _require_one_frame(manifest, entry, volume.geometry, first.source)
    turned = preprocess.turn(volume, entry)
    # The crop of the first is that of all on its grid, statistics included, as nnU-Net has it.
    region = first.region if turned.geometry.agrees_with(first.source) else WHOLE
    seen = steps.run(turned, entry.source_steps, region=region, threads=threads).volume
    return registration.onto(seen, entry, first.geometry.within(first.inner), threads=threads)


def _require_one_frame(manifest: Manifest, entry: Input, own: Geometry, first: Geometry) -> None:
    """Raise RoleError where nobody knows how the series lies to the first (PS3.3 C.7.4.1.1.1)."""
    frame = first.frame_of_reference_uid
    if frame is not None and frame == own.frame_of_reference_uid:
        return
    roles = (manifest.reference.called, entry.called)
    named = " and ".join(uid or "none" for uid in (frame, own.frame_of_reference_uid))
    raise RoleError(
        f"{roles[0]} and {roles[1]} are not in one Frame of Reference ({named}), so nothing says how they lie "
        "to each other; send series of one examination, or register them before",
        roles=roles,
    )


@contextmanager
def _about(manifest: Manifest, entry: Input) -> Iterator[None]:
    """Name the role of a series that cannot be used, where there are several."""
    try:
        yield
    except RoleError:
        raise
    except VolumeError as error:
        if len(manifest.inputs) == 1:
            raise
        raise RoleError(f"{entry.called}: {error}", roles=(entry.called,)) from error


@contextmanager
def _at(place: int, entry: Input) -> Iterator[None]:
    """Name the moment that cannot be used, where a series has several."""
    try:
        yield
    except RoleError:
        raise
    except VolumeError as error:
        if entry.moments is None:
            raise
        raise VolumeError(
            f"moment {place + 1} of the {entry.channels} that are looked at: {error}"
        ) from error


class _Channels:
    """The arrays of a graph's inputs, filled channel by channel."""

    def __init__(self, manifest: Manifest) -> None:
        self.arrays: dict[str, NDArray[np.float32]] = {}
        self._manifest = manifest
        self._counts: Counter[str] = Counter()
        for entry in manifest.inputs:
            self._counts[entry.name] += entry.channels
        self._filled: Counter[str] = Counter()

    def put(self, entry: Input, array: NDArray[np.float32]) -> None:
        """The next channel of the entry's input. Raises RoleError where it has another shape than those before."""
        count, position = self._counts[entry.name], self._filled[entry.name]
        if count == 1:
            self.arrays[entry.name] = array[None]
            return
        if not position:
            self.arrays[entry.name] = np.empty((count, *array.shape), dtype=np.float32)
        whole = self.arrays[entry.name]
        if array.shape != whole.shape[1:]:
            before = next(one.called for one in self._manifest.inputs if one.name == entry.name)
            raise RoleError(
                f'{before} and {entry.called} are channels of "{entry.name}", and have {whole.shape[2:]} and '
                f"{array.shape[1:]} rows and columns: give them one `size` in the manifest",
                roles=(before, entry.called),
            )
        whole[position] = array
        self._filled[entry.name] += 1
