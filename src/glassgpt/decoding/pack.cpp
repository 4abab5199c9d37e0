// Matrices of bfloat16 numbers packed into 12 bits a number (packed.h); packed.py decides which.

#include <omp.h>

#include "packed.h"

namespace {

// The commonest upper bytes of rows with some 100,000 weights, which tell as much as all of a large matrix.
void find_commonest(const uint16_t* weights, int64_t rows, int64_t columns, uint8_t* upper) {
    int64_t count[256] = {};
    const int64_t apart = 1 + rows * columns / (1 << 17);
    for (int64_t row = 0; row < rows; row += apart)
        for (int64_t i = 0; i < columns; i++) count[weights[row * columns + i] >> 8]++;
    for (int64_t bits = 0; bits < TABLE; bits++) {
        int64_t* most = std::max_element(count, count + 256);
        upper[bits] = uint8_t(most - count);
        *most = -1;
    }
}

}  // namespace

// How many bytes glassgpt_pack fills; 0 where that would not pay, or rows are too short.
extern "C" int64_t glassgpt_packed_bytes(int64_t rows, int64_t columns) {
    const int64_t n_groups = columns / GROUP;
    return PACKS && n_groups ? LINE + flags_bytes(rows, n_groups) + rows * n_groups * PACKED : 0;
}

// How many groups are rare.
extern "C" int64_t glassgpt_pack(const uint16_t* weights, int64_t rows, int64_t columns, uint8_t* memory,
                                 int32_t n_threads) {
    int64_t n_rare = 0;
#if defined(__AVX512BW__)
    const Packed<uint8_t> packed(memory, rows, columns);
    find_commonest(weights, rows, columns, packed.upper);
#pragma omp parallel for num_threads(n_threads) schedule(static) reduction(+ : n_rare)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t g = 0; g < packed.n_groups; g++)
            n_rare += packed.is_rare(row, g) =
                !pack(weights + row * columns + g * GROUP, packed.upper, packed.group(row, g));
#endif
    return n_rare;
}

// Whether `memory` holds these weights, so far as it is read: 1 or 0.
extern "C" int64_t glassgpt_is_packed(const uint16_t* weights, int64_t rows, int64_t columns, const uint8_t* memory,
                                      int32_t n_threads) {
    int64_t n_others = 0;
#if defined(__AVX512BW__)
    const Packed<const uint8_t> packed(memory, rows, columns);
#pragma omp parallel for num_threads(n_threads) schedule(static) reduction(+ : n_others)
    for (int64_t row = 0; row < rows; row++) {
        const __m512i table = load_table(packed.upper);
        for (int64_t g = 0; g < packed.n_groups; g++)
            if (!packed.is_rare(row, g))
                n_others += !is_packed(packed.group(row, g), table, weights + row * columns + g * GROUP);
    }
#endif
    return n_others == 0;
}
