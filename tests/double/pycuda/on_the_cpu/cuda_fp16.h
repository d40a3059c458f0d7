// Half precision as CUDA's header of this name has it, by the compiler's own type.
#pragma once

using __half = _Float16;

static inline __half __float2half_rn(float value) { return static_cast<__half>(value); }
static inline float __half2float(__half value) { return static_cast<float>(value); }
