// What a CUDA kernel needs to be compiled as C++: its threads run one after the other.
#pragma once

#include <cmath>
#include <cstddef>
#include <string>
#include <utility>

#define __global__
#define __device__

struct Index {
    unsigned x, y, z;
};

static thread_local Index threadIdx, blockIdx, blockDim, gridDim;

// The arguments' types, as Python's struct has them.
template <class T>
constexpr char letter() {
    if constexpr (std::is_pointer_v<T>) return 'P';
    if constexpr (std::is_same_v<T, int>) return 'i';
    if constexpr (std::is_same_v<T, long long>) return 'q';
    if constexpr (std::is_same_v<T, float>) return 'f';
    return '?';
}

template <class... A>
const char* arguments_of(void (*)(A...)) {
    static const std::string found = {letter<A>()...};
    return found.c_str();
}

template <class... A, std::size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<A*>(arguments[I])...);
}

template <class... A>
void launch(void (*kernel)(A...), const unsigned* sizes, void** arguments) {
    gridDim = {sizes[0], sizes[1], sizes[2]};
    blockDim = {sizes[3], sizes[4], sizes[5]};
    for (blockIdx.z = 0; blockIdx.z < gridDim.z; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < gridDim.y; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x)
                for (threadIdx.z = 0; threadIdx.z < blockDim.z; ++threadIdx.z)
                    for (threadIdx.y = 0; threadIdx.y < blockDim.y; ++threadIdx.y)
                        for (threadIdx.x = 0; threadIdx.x < blockDim.x; ++threadIdx.x)
                            call(kernel, arguments, std::index_sequence_for<A...>());
}

#define KERNEL(name)                                                                              \
    extern "C" const char* arguments_of_##name() { return arguments_of(name); }                   \
    extern "C" void launch_##name(const unsigned* sizes, void** arguments) { launch(name, sizes, arguments); }
