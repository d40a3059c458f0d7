"""Whether the other models that a package names are there, the very ones it means, and fit it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engines.errors import PackageError
from engines.manifest import Manifest
from engines.manifest_stages import After, Other
from engines.package import MANIFEST, ModelPackage

#: What the members of an ensemble must say alike: they see the same image through the same windows.
_ALIKE = ("task", "after", "tiling", "prompts")


def complete(packages: Sequence[ModelPackage]) -> tuple[list[ModelPackage], dict[str, PackageError]]:
    """Those of `packages` whose other models are all among them and fit; by name, what is wrong with the rest."""
    known = {package.manifest.name: package for package in packages}
    errors: dict[str, PackageError] = {}
    for name, package in known.items():
        try:
            check(package, known)
        except PackageError as error:
            errors[name] = error
    return [package for name, package in known.items() if name not in errors], errors


def check(package: ModelPackage, known: Mapping[str, ModelPackage]) -> None:
    """Raise PackageError, naming file, key and what to do, where a model that `package` needs is not usable."""
    _refuse_circles(package, known, ())
    for key, other in _others(package.manifest):
        needed = _found(package, key, other, known)
        try:
            check(needed, known)
        except PackageError as error:
            raise _error(package, f"{key}.model", f"{other.model} is not usable itself: {error}") from error
        problem = (
            _unfit_before(package.manifest, other, needed.manifest)
            if isinstance(other, After)
            else _unfit_beside(package.manifest, needed.manifest)
        )
        if problem:
            raise _error(package, key, problem)


def _others(manifest: Manifest) -> Iterator[tuple[str, Other]]:
    """The other models that a manifest names, with where it does."""
    for key, others in (("after", manifest.after), ("ensemble", manifest.ensemble)):
        for number, other in enumerate(others):
            yield f"{key}[{number}]", other


def _error(package: ModelPackage, key: str, problem: str) -> PackageError:
    return PackageError(f"{package.folder / MANIFEST}: {key}: {problem}")


def _refuse_circles(package: ModelPackage, known: Mapping[str, ModelPackage], trail: tuple[str, ...]) -> None:
    """Raise PackageError where a model would wait for its own answer."""
    name = package.manifest.name
    for key, other in _others(package.manifest):
        path = (*trail, name, other.model)
        if other.model in (*trail, name):
            circle = " needs ".join(path)
            raise _error(package, f"{key}.model", f"{circle}, so that none can be first: remove one of them")
        if other.model in known:
            _refuse_circles(known[other.model], known, (*trail, name))


def _found(package: ModelPackage, key: str, other: Other, known: Mapping[str, ModelPackage]) -> ModelPackage:
    """The package that `other` means."""
    needed = known.get(other.model)
    if needed is None:
        raise _error(
            package,
            f"{key}.model",
            f"there is no usable model {other.model}: put it into a folder that `models` of the configuration names",
        )
    if needed.digest != other.digest:
        raise _error(
            package,
            f"{key}.digest",
            f"{other.model} in {needed.folder} has {needed.digest}, not {other.digest}: put back the package that "
            "this one was made for, or write the new digest if it still fits",
        )
    return needed


def _unfit_before(later: Manifest, entry: After, earlier: Manifest) -> str:
    """Why `earlier` cannot answer before `later`; "" where it can."""
    keys = [label.key for label in earlier.labels]
    unknown = sorted(set(entry.use.labels) - set(keys))
    if unknown:
        return f"{earlier.name} has no label {', '.join(unknown)}; its labels: {', '.join(keys) or 'none'}"
    if earlier.reference.planar != later.reference.planar:
        return f"one of {earlier.name} and {later.name} is planar and the other is not: they see other images"
    kinds = {each.called: each.values for each in later.inputs[1:]} | {"": later.reference.values}
    for role, own in [("", earlier.reference), *((each.called, each) for each in earlier.inputs[1:])]:
        if kinds.get(role, own.values) != own.values:
            return f"{earlier.name} looks at values: {own.values}{_of(role)}, and {later.name} at others"
    moments = {each.called: each.moments for each in later.inputs[1:]} | {"": later.reference.moments}
    for role, own in [("", earlier.reference), *((each.called, each) for each in earlier.inputs[1:])]:
        # One that looks at no moments sees the first of those that the later one looks at.
        if own.moments is not None and moments.get(role, own.moments) != own.moments:
            return f"{earlier.name} looks at other moments{_of(role)} than {later.name}"
    missing = sorted({i.called for i in earlier.inputs[1:]} - {i.called for i in later.inputs[1:]})
    if missing:
        return (
            f"{earlier.name} needs the series {', '.join(missing)} as well: add them to the inputs, by role"
        )
    return ""


def _of(role: str) -> str:
    """The role of a further series; "" for the first."""
    return f" of {role}" if role else ""


def _unfit_beside(own: Manifest, other: Manifest) -> str:
    """Why `other` cannot be a member of `own`'s ensemble; "" where it can."""
    if other.ensemble:
        return f"{other.name} is an ensemble itself: name its members here"
    for key in _ALIKE:
        if getattr(own, key) != getattr(other, key):
            return f"{other.name} has another {key}: members see the same image through the same windows"
    for number, (mine, its) in enumerate(zip(_inputs(own), _inputs(other), strict=False)):
        differing = sorted(key for key in mine if mine[key] != its[key])
        if differing:
            return f"{other.name} has another inputs[{number}].{differing[0]}: members see the same image"
    if len(own.inputs) != len(other.inputs):
        return f"{other.name} has {len(other.inputs)} inputs, not {len(own.inputs)}"
    return _other_answer(own.outputs[0], other.outputs[0], other.name)


def _inputs(manifest: Manifest) -> list[dict[str, Any]]:
    """How each input is made; which series it is of is asked of the ensemble's own manifest."""
    return [entry.model_dump(exclude={"series"}) for entry in manifest.inputs]


def _other_answer(own: Any, other: Any, name: str) -> str:
    """Why two outputs cannot be averaged; "" where they can."""
    for key in ("name", "activation"):
        if getattr(own, key) != getattr(other, key):
            return f"{name} has another outputs[0].{key}: answers that are averaged are of one kind"
    labels = [[(label.index, label.key) for label in output.labels] for output in (own, other)]
    return "" if labels[0] == labels[1] else f"{name} has other labels: members find the same things"
