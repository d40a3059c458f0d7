"""Everything that `engines` raises on purpose.

EngineError
├── PackageError            the model package is not usable: the message names file, key and remedy
├── RunnerError             the runtime refused the model or died on it
│   ├── InputMismatch       an array's name, dtype or shape is not what the model declares
│   ├── PlanError           there is no compiled plan that can be used, or the compiler refuses the network
│   └── DeviceError         the GPU cannot be used: no driver, one that is too old, or it failed
│       ├── DeviceFull      its memory does not suffice
│       └── DeviceLost      nothing more can be done on it in this process
├── VolumeError             a volume cannot be brought to the model's grid
│   └── RoleError           one of several; `roles` says which
└── OutputError             the model's answer is not usable (NaN, wrong shape, unknown label)
"""

from __future__ import annotations


class EngineError(Exception):
    """The engine could not do what was asked."""


class PackageError(EngineError):
    """The model package is not usable."""


class RunnerError(EngineError):
    """The inference runtime refused the model or failed on it."""


class InputMismatch(RunnerError):
    """An input array does not match the model's declared name, dtype or shape."""


class PlanError(RunnerError):
    """There is no compiled plan that can be used, or the compiler refuses the network."""


class DeviceError(RunnerError):
    """The GPU cannot be used."""


class DeviceFull(DeviceError):
    """The memory of the GPU does not suffice."""


class DeviceLost(DeviceError):
    """Nothing more can be done on the GPU in this process."""


class VolumeError(EngineError):
    """The volume cannot be brought to the model's grid."""


class RoleError(VolumeError):
    """One of the several series of a model cannot be used."""

    def __init__(self, message: str, *, roles: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        #: What the manifest calls the series that it is about.
        self.roles = roles


class OutputError(EngineError):
    """The model's output is not usable."""
