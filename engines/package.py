"""A model package: a folder of manifest, weights and card, checked before anything in it is used."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engines import manifest_file
from engines.errors import PackageError
from engines.findings import ModelIdentity, Segment, Translation
from engines.manifest import Manifest
from engines.manifest_entries import WordsEntry

MANIFEST = "model.yaml"

#: Names that end like this hold code, or may run some when they are read (a pickle does).
# fmt: off
CODE_SUFFIXES = frozenset({
    ".py", ".pyc", ".pyo", ".pyd", ".pyx", ".ipynb", ".sh", ".bash", ".bat", ".cmd", ".ps1", ".js", ".rb",
    ".pl", ".lua", ".r", ".c", ".cpp", ".cu", ".h", ".so", ".dll", ".dylib", ".exe", ".com", ".bin", ".o",
    ".a", ".jar", ".class", ".wasm", ".whl", ".egg", ".zip", ".tar", ".tgz", ".pt", ".pth", ".ckpt", ".pkl",
    ".pickle", ".joblib", ".dill", ".mar", ".h5", ".keras", ".engine", ".plan",
})
# fmt: on

#: First bytes of programs, whatever they are called: ELF, Windows, script, Mach-O.
_CODE_MAGIC = (b"\x7fELF", b"MZ", b"#!", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")

#: How an ONNX file says that a tensor lies in another file: the key of TensorProto.external_data as the
#: first field (tag 0x0A, length 8) of its StringStringEntryProto, then the tag of the value.
_FURTHER_FILE = b"\x0a\x08location\x12"


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelPackage:
    """A package that has passed every check of `open_package`."""

    folder: Path
    manifest: Manifest
    #: The network's file, inside `folder`.
    weights: Path
    #: SHA-256 over manifest and weights, lower-case hex.
    digest: str

    @property
    def identity(self) -> ModelIdentity:
        """Which model, exactly."""
        return ModelIdentity(
            name=self.manifest.name,
            version=self.manifest.version,
            manufacturer=self.manifest.manufacturer,
            digest=self.digest,
            research_only=self.manifest.research_only,
            intended_use=self.manifest.intended_use,
            parts=self._parts,
            words={language: self._translation(entry) for language, entry in self.manifest.words.items()},
        )

    @property
    def _parts(self) -> tuple[str, ...]:
        """The other models that its answers are made with."""
        manifest = self.manifest
        named = [*(("after", o) for o in manifest.after), *(("together with", o) for o in manifest.ensemble)]
        return tuple(dict.fromkeys(f"{how}: {other.model} sha256:{other.digest}" for how, other in named))

    def _translation(self, entry: WordsEntry) -> Translation:
        """The manifest's words, by what a mask and findings know."""
        numbers = {label.key: label.index for label in self.manifest.labels}
        return Translation(
            intended_use=entry.intended_use,
            segments={numbers[key]: word for key, word in entry.labels.items()},
            measurements=dict(entry.measurements),
            findings=dict(entry.findings),
        )

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The labels that the model's mask can hold, in the order of their numbers."""
        return tuple(
            Segment(
                number=label.index,
                label=label.label,
                category=label.category.code(),
                type=label.type.code(),
                anatomic_region=label.anatomic_region.code() if label.anatomic_region else None,
                colour=label.colour,
            )
            for label in sorted(self.manifest.labels, key=lambda label: label.index)
        )

    def read_weights(self) -> bytes:
        """The weights' bytes, checked against the manifest once more.

        Runtimes get these bytes and never the path: what was checked is then what runs, and a graph
        cannot reach for further files.
        """
        return _verified_weights(self.folder, self.weights, self.manifest.weights.sha256)


def discover(folders: Sequence[Path]) -> tuple[list[ModelPackage], list[PackageError]]:
    """Open every package in `folders`: each is a package itself or holds packages one level down.

    A broken package never hides the good ones: it comes back as its error. So does a second package
    of the same name.
    """
    packages: dict[str, ModelPackage] = {}
    errors: list[PackageError] = []
    for folder in folders:
        try:
            found = _candidates(folder)
        except PackageError as error:
            errors.append(error)
            continue
        for candidate in found:
            try:
                package = open_package(candidate)
                _refuse_namesake(package, packages)
            except PackageError as error:
                errors.append(error)
            else:
                packages[package.manifest.name] = package
    return list(packages.values()), errors


def open_package(folder: Path) -> ModelPackage:
    """Read and check the package in `folder`.

    Raises PackageError, which names the file, the key and what to do, where the manifest is missing,
    does not parse or contradicts itself, where the weights are not the ones the manifest means, and
    where the folder holds code.
    """
    path = folder / MANIFEST
    text = _read_manifest(path)
    manifest = manifest_file.parse(text, path)
    _refuse_code(folder)
    weights = _weights_path(folder, manifest.weights.file)
    _verified_weights(folder, weights, manifest.weights.sha256)
    return ModelPackage(
        folder=folder, manifest=manifest, weights=weights, digest=_digest(text, manifest.weights.sha256)
    )


def _candidates(folder: Path) -> list[Path]:
    """The package folders that a configured models folder stands for."""
    if (folder / MANIFEST).exists():
        return [folder]
    if not folder.is_dir():
        raise PackageError(f"{folder}: there is no such folder: correct the models setting")
    return sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))


def _refuse_namesake(package: ModelPackage, known: dict[str, ModelPackage]) -> None:
    """Two packages of one name would make it uncertain which of them a route runs."""
    namesake = known.get(package.manifest.name)
    if namesake is not None and namesake.folder.resolve() != package.folder.resolve():
        raise PackageError(
            f"{package.folder / MANIFEST}: name: {namesake.folder} is called "
            f"{package.manifest.name} as well: "
            "rename or remove one of the two"
        )


def _read_manifest(path: Path) -> bytes:
    """The manifest's bytes."""
    if not path.parent.is_dir():
        raise PackageError(f"{path.parent}: there is no such folder: give the folder that holds {MANIFEST}")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise PackageError(f"{path}: there is no such file: a model package needs a {MANIFEST}") from None
    except OSError as error:
        raise PackageError(f"{path}: {error.strerror}: make the file readable") from error


def _refuse_code(folder: Path) -> None:
    """A package is data: anything that could run, or leads out of the folder, is refused."""
    root = folder.resolve()
    for path in sorted(folder.rglob("*")):
        try:
            if not path.resolve().is_relative_to(root):
                raise PackageError(f"{path}: the link leads out of the package: put the file itself there")
            if path.is_file() and _is_code(path):
                raise PackageError(f"{path}: a model package holds no code: remove the file")
        except (OSError, RuntimeError) as error:
            # A link to itself is a RuntimeError.
            raise PackageError(f"{path}: it cannot be read ({error}): mend or remove it") from error


def _is_code(path: Path) -> bool:
    """Whether the file's name or its first bytes are those of a program, an archive or a pickle."""
    if path.suffix.lower() in CODE_SUFFIXES:
        return True
    with path.open("rb") as file:
        return file.read(4).startswith(_CODE_MAGIC)


def _weights_path(folder: Path, name: str) -> Path:
    """The weights' path, which must stay within the folder."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise PackageError(
            f"{folder / MANIFEST}: weights.file: {name} is outside the package: name a file in it"
        )
    if not path.is_file():
        raise PackageError(
            f"{folder / MANIFEST}: weights.file: there is no {path}: add it or correct the name"
        )
    return path


def _verified_weights(folder: Path, path: Path, expected: str) -> bytes:
    """The bytes of the weights, whose SHA-256 must be the manifest's."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PackageError(f"{path}: {error.strerror}: make the file readable") from error
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise PackageError(
            f"{folder / MANIFEST}: weights.sha256: {path.name} has {found}, not {expected}: "
            "fetch the package again, or write the new digest after a retraining"
        )
    refuse_further_files(path, content)
    return content


def refuse_further_files(path: Path, content: bytes) -> None:
    """Raise PackageError where the ONNX file at `path` is not the whole network."""
    if _FURTHER_FILE in content:
        raise PackageError(
            f"{path}: the network keeps tensors in further files, which no digest covers: "
            "save it as a single ONNX file"
        )


def _digest(manifest: bytes, weights_sha256: str) -> str:
    """One digest of both files; the manifest's bytes count, so that a changed comment is a change too."""
    joined = f"{hashlib.sha256(manifest).hexdigest()}\n{weights_sha256}\n"
    return hashlib.sha256(joined.encode("ascii")).hexdigest()
