// Matrices of weights packed into fewer bits (packed.h); packed.py decides which.

#include <omp.h>

#include "packed.h"

namespace {

// The commonest upper bytes of rows with some 100,000 weights, which tell as much as all of a large matrix.
template <typename Weight>
void find_commonest(const Weight* weights, int64_t rows, int64_t columns, uint8_t* upper) {
    int64_t count[256] = {};
    const auto bytes = reinterpret_cast<const uint8_t*>(weights);
    const int64_t apart = 1 + rows * columns / (1 << 17), size = sizeof(Weight);
    for (int64_t row = 0; row < rows; row += apart)
        for (int64_t i = 0; i < columns; i++) count[bytes[(row * columns + i) * size + size - 1]]++;
    for (int64_t bits = 0; bits < TABLE; bits++) {
        int64_t* most = std::max_element(count, count + 256);
        upper[bits] = uint8_t(most - count);
        *most = -1;
    }
}

template <typename Weight>
int64_t packed_bytes(int64_t rows, int64_t columns) {
    const int64_t n_groups = columns / GROUP;
    return PACKS && n_groups ? LINE + rare_bytes(rows, n_groups) + rows * n_groups * PACKED<Weight> : 0;
}

template <typename Weight>
int64_t pack_matrix(const Weight* weights, int64_t rows, int64_t columns, uint8_t* memory, int32_t n_threads) {
    int64_t n_unpacked = 0;
#if defined(__AVX512BW__)
    const Packed<Weight, uint8_t> packed(memory, rows, columns);
    find_commonest(weights, rows, columns, packed.upper);
#pragma omp parallel for num_threads(n_threads) schedule(static) reduction(+ : n_unpacked)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t g = 0; g < packed.n_groups; g++) {
            Rare& rare = packed.rare_of(row, g);
            rare = pack(weights + row * columns + g * GROUP, packed.upper, packed.group(row, g));
            n_unpacked += rare.place == MANY;
        }
#endif
    return n_unpacked;
}

template <typename Weight>
bool is_packed_matrix(const Weight* weights, int64_t rows, int64_t columns, const uint8_t* memory,
                      int32_t n_threads) {
    int64_t n_others = 0;
#if defined(__AVX512BW__)
    const Packed<Weight> packed(memory, rows, columns);
#pragma omp parallel for num_threads(n_threads) schedule(static) reduction(+ : n_others)
    for (int64_t row = 0; row < rows; row++) {
        const __m512i table = load_table(packed.upper);
        for (int64_t g = 0; g < packed.n_groups; g++)
            n_others += !is_packed(packed, row, g, table, weights + row * columns + g * GROUP);
    }
#endif
    return n_others == 0;
}

}  // namespace

// Weights of 4 bytes are float32, others bfloat16.

// How many bytes glassgpt_pack fills; 0 where that would not pay, or rows are too short.
extern "C" int64_t glassgpt_packed_bytes(int64_t bytes, int64_t rows, int64_t columns) {
    return bytes == 4 ? packed_bytes<float>(rows, columns) : packed_bytes<uint16_t>(rows, columns);
}

// How many groups are read as they were.
extern "C" int64_t glassgpt_pack(int64_t bytes, int64_t rows, int64_t columns, const void* weights, uint8_t* memory,
                                 int32_t n_threads) {
    return bytes == 4
               ? pack_matrix(static_cast<const float*>(weights), rows, columns, memory, n_threads)
               : pack_matrix(static_cast<const uint16_t*>(weights), rows, columns, memory, n_threads);
}

// Whether `memory` holds these weights, so far as it is read: 1 or 0.
extern "C" int64_t glassgpt_is_packed(int64_t bytes, int64_t rows, int64_t columns, const void* weights,
                                      const uint8_t* memory, int32_t n_threads) {
    return bytes == 4
               ? is_packed_matrix(static_cast<const float*>(weights), rows, columns, memory, n_threads)
               : is_packed_matrix(static_cast<const uint16_t*>(weights), rows, columns, memory, n_threads);
}
