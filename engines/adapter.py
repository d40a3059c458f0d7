"""What the first GPU is called, asked of NVIDIA's driver itself: without pycuda, and without a context on the GPU."""

from __future__ import annotations

import ctypes

from engines.errors import DeviceError

LIBRARY = "libcuda.so.1"

#: What to do where CUDA cannot be used.
DRIVER = "install or update the NVIDIA driver, and see that `nvidia-smi` lists the GPU"

#: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR (CUDA driver API, CUdevice_attribute).
_MAJOR, _MINOR = 75, 76


def first() -> tuple[str, str]:
    """Its name and compute capability, e.g. ("NVIDIA H200", "9.0").

    Raises DeviceError where there is no driver, or no GPU that it lets this process see.
    """
    try:
        driver = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise DeviceError(f"the NVIDIA driver's {LIBRARY} cannot be loaded ({error}): {DRIVER}") from error
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    major, minor = ctypes.c_int(), ctypes.c_int()
    for what, answer in (
        ("cuInit", driver.cuInit(0)),
        ("cuDeviceGet", driver.cuDeviceGet(ctypes.byref(device), 0)),
        ("cuDeviceGetName", driver.cuDeviceGetName(name, len(name), device)),
        ("cuDeviceGetAttribute", driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)),
        ("cuDeviceGetAttribute", driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)),
    ):
        if answer:
            raise DeviceError(f"CUDA sees no GPU: {what} answers {answer}: {DRIVER}")
    return name.value.decode(errors="replace"), f"{major.value}.{minor.value}"
