// From a network's logits to labels, on the device: what engines/window_sums.py and engines/postprocess.py do on the host.
//
// Compiled with -fmad=false: every product and sum is rounded by itself, in the order in which numpy and scipy round
// them, so that both give the same labels. No thread adds to what another one writes, so the order of windows is that of
// the stream.
//
// Sums lie in a ring of slots, one for each slice: (slots, classes, height, width). What is marked "by patch voxel" and
// the like runs one thread for each.

#include <cuda_fp16.h>

// Bits of `flags`' two words: [0] the network's answer is not finite, [1] float16 cannot hold its sums.
enum { NOT_FINITE = 0, TOO_LARGE = 1 };

enum { NO_ACTIVATION = 0, SOFTMAX = 1, SIGMOID = 2 };

static __device__ long long thread_number() {
    return static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
}

static __device__ float to_half(float value) { return __half2float(__float2half_rn(value)); }

static __device__ bool is_finite(float value) { return value - value == 0.0f; }

// Where voxel `number` of a patch lies in logits that are mirrored along the axes of `flips` (1 slices, 2 rows, 4 columns).
static __device__ long long mirrored_place(long long number, int depth, int rows, int columns, int flips) {
    int column = static_cast<int>(number % columns);
    int row = static_cast<int>(number / columns % rows);
    int slice = static_cast<int>(number / columns / rows);
    if (flips & 1) slice = depth - 1 - slice;
    if (flips & 2) row = rows - 1 - row;
    if (flips & 4) column = columns - 1 - column;
    return (static_cast<long long>(slice) * rows + row) * columns + column;
}

// By value. Note whether one of them is not a finite number.
extern "C" __global__ void look(const float* values, long long count, int* flags) {
    const long long number = thread_number();
    if (number < count && !is_finite(values[number])) flags[NOT_FINITE] = 1;
}

// By patch voxel. Add up the mirror images of a window in `whole`, (classes, depth, rows, columns); with the last one
// divide by their number.
extern "C" __global__ void mirror(const float* logits, float* whole, int classes, int depth, int rows, int columns,
                                  int flips, int first, float divisor) {
    const long long size = static_cast<long long>(depth) * rows * columns;
    const long long number = thread_number();
    if (number >= size) return;
    const float* value = logits + mirrored_place(number, depth, rows, columns, flips);
    float* total = whole + number;
    for (int channel = 0; channel < classes; ++channel, value += size, total += size) {
        float sum = first ? *value : *total + *value;
        if (divisor != 0.0f) sum = sum / divisor;
        *total = sum;
    }
}

// By patch voxel. Add a window's logits, weighted, to the sums, and its weights to the counts where there are any.
extern "C" __global__ void add(const float* logits, const float* weights, float* sums, float* counts, int classes,
                               int depth, int rows, int columns, int flips, int slice, int row, int column, int slots,
                               int height, int width, int halves) {
    const long long size = static_cast<long long>(depth) * rows * columns;
    const long long number = thread_number();
    if (number >= size) return;
    const int slot = static_cast<int>((slice + number / columns / rows) % slots);
    const long long plane = static_cast<long long>(height) * width;
    const long long place = (row + number / columns % rows) * width + column + number % columns;
    const float weight = weights[number];
    const float* value = logits + mirrored_place(number, depth, rows, columns, flips);
    float* total = sums + slot * classes * plane + place;
    for (int channel = 0; channel < classes; ++channel, value += size, total += plane) {
        const float sum = *total + *value * weight;
        *total = halves ? to_half(sum) : sum;
    }
    if (counts) {
        const float sum = counts[slot * plane + place] + weight;
        counts[slot * plane + place] = halves ? to_half(sum) : sum;
    }
}

// By voxel of `slices` slices from `slice` on, and of `rows` x `columns` from (`row`, `column`) on. Divide the sums by
// their weights, in place, and make probabilities of them where `activation` says so. Weights are `counts`, or the
// product of the totals along each axis; where nothing was counted the voxel is `background`.
extern "C" __global__ void finish(float* sums, const float* counts, const float* by_slice, const float* by_row,
                                  const float* by_column, const float* background, int* flags, int classes, int slice,
                                  int slices, int row, int rows, int column, int columns, int slots, int height,
                                  int width, int halves, int activation) {
    const long long number = thread_number();
    if (number >= static_cast<long long>(slices) * rows * columns) return;
    const int x = static_cast<int>(number % columns) + column;
    const int y = static_cast<int>(number / columns % rows) + row;
    const int z = static_cast<int>(number / columns / rows) + slice;
    const long long plane = static_cast<long long>(height) * width;
    const long long place = static_cast<long long>(y) * width + x;
    float* const first = sums + static_cast<long long>(z % slots) * classes * plane + place;
    float* const end = first + classes * plane;
    const float count = counts ? counts[(z % slots) * plane + place] : 1.0f;
    const float in_plane = counts ? 1.0f : by_row[y] * by_column[x];
    float most = 0.0f;
    for (float* value = first; value != end; value += plane) {
        if (!counts) {
            *value = *value / by_slice[z] / in_plane;
        } else {
            *value = count > 0.0f ? *value / count : background[(value - first) / plane];
        }
        if (halves) {
            *value = to_half(*value);
            if (!is_finite(*value)) flags[TOO_LARGE] = 1;
        }
        if (activation == SIGMOID) *value = 1.0f / (1.0f + expf(-*value));
        if (value == first || *value > most) most = *value;
    }
    if (activation != SOFTMAX) return;
    float total = 0.0f;
    for (float* value = first; value != end; value += plane) {
        *value = expf(*value - most);
        total = total + *value;
    }
    for (float* value = first; value != end; value += plane) *value = *value / total;
}

// One axis of an interpolation: a sparse matrix in rows, or null pointers where nothing changes.
struct Axis {
    const int* begins;
    const int* indices;
    const float* shares;

    __device__ int begin(int index) const { return begins ? begins[index] : index; }
    __device__ int end(int index) const { return begins ? begins[index + 1] : index + 1; }
    __device__ int at(int tap) const { return begins ? indices[tap] : tap; }
    __device__ float share(int tap) const { return begins ? shares[tap] : 1.0f; }
};

// A class at a voxel of the source's grid: along the slices first, then the rows, then the columns.
static __device__ float between(const float* sums, Axis along, Axis down, Axis across, int z, int y, int x, int slice,
                                int row, int column, int slots, long long slot_size, int width) {
    float value = 0.0f;
    for (int i = across.begin(x); i < across.end(x); ++i) {
        float high = 0.0f;
        for (int j = down.begin(y); j < down.end(y); ++j) {
            const long long place = static_cast<long long>(down.at(j) + row) * width + across.at(i) + column;
            float deep = 0.0f;
            for (int k = along.begin(z); k < along.end(z); ++k) {
                const int slot = (along.at(k) + slice) % slots;
                deep = deep + sums[slot * slot_size + place] * along.share(k);
            }
            high = high + deep * down.share(j);
        }
        value = value + high * across.share(i);
    }
    return value;
}

// By voxel of `slices` slices of the source's grid from `start` on. Interpolate every class and write the label that
// wins: the largest, the first of equals; of regions (`numbers` says what each stands for) the last beyond `half`.
// The model's grid begins at (`slice`, `row`, `column`) of the sums'.
extern "C" __global__ void label(const float* sums, void* labels, const int* along_begins, const int* along_indices,
                                 const float* along_shares, const int* row_begins, const int* row_indices,
                                 const float* row_shares, const int* column_begins, const int* column_indices,
                                 const float* column_shares, const int* numbers, float half, int classes, int start,
                                 int slices, int rows, int columns, int slice, int row, int column, int slots,
                                 int height, int width, int halves, int wide) {
    const long long number = thread_number();
    if (number >= static_cast<long long>(slices) * rows * columns) return;
    const int x = static_cast<int>(number % columns);
    const int y = static_cast<int>(number / columns % rows);
    const int z = static_cast<int>(number / columns / rows) + start;
    const Axis along = {along_begins, along_indices, along_shares};
    const Axis down = {row_begins, row_indices, row_shares};
    const Axis across = {column_begins, column_indices, column_shares};
    const long long plane = static_cast<long long>(height) * width;
    int found = 0;
    float best = 0.0f;
    for (int channel = 0; channel < classes; ++channel) {
        float value = between(sums + channel * plane, along, down, across, z, y, x, slice, row, column, slots,
                              classes * plane, width);
        if (numbers) {
            if (value > half) found = numbers[channel];
            continue;
        }
        if (halves) value = to_half(value);
        if (channel == 0 || value > best) {
            best = value;
            found = channel;
        }
    }
    if (wide) {
        static_cast<unsigned short*>(labels)[number] = static_cast<unsigned short>(found);
    } else {
        static_cast<unsigned char*>(labels)[number] = static_cast<unsigned char>(found);
    }
}
