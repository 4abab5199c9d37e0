// bfloat16 matrices packed into 12 bits a number, as packed.h describes; packed.py decides which.

#include <omp.h>

#include "packed.h"

namespace {

// The commonest upper bytes of each 32nd row, which tells as much as all rows.
void find_commonest(const uint16_t* weights, int64_t rows, int64_t columns, uint8_t* upper) {
    int64_t count[256] = {};
    for (int64_t row = 0; row < rows; row += 32)
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
    uint8_t* const nowhere = nullptr;
    const Packed<uint8_t> packed(nowhere, rows, columns);
    return PACKS && packed.n_groups ? packed.group(rows, 0) - nowhere : 0;
}

extern "C" void glassgpt_pack(const uint16_t* weights, int64_t rows, int64_t columns, uint8_t* memory,
                              int32_t n_threads) {
#if defined(__AVX512BW__)
    const Packed<uint8_t> packed(memory, rows, columns);
    find_commonest(weights, rows, columns, packed.upper);
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t g = 0; g < packed.n_groups; g++)
            packed.is_rare(row, g) = !pack(weights + row * columns + g * GROUP, packed.upper, packed.group(row, g));
#endif
}

// A number that other contents would hardly have. `n` bytes are whole lines, in pieces so that threads can share them.
extern "C" uint64_t glassgpt_fingerprint(const uint8_t* bytes, int64_t n, int32_t n_threads) {
    constexpr int64_t PIECE = 1 << 20;
    typedef uint64_t Line __attribute__((vector_size(LINE)));
    uint64_t total = 0;
#pragma omp parallel for num_threads(n_threads) schedule(static) reduction(+ : total)
    for (int64_t start = 0; start < n; start += PIECE) {
        Line sum = {}, sum_of_sums = {};  // as Fletcher's checksum: places count, too
        for (int64_t i = start; i < std::min(n, start + PIECE); i += LINE) {
            Line line;
            std::memcpy(&line, bytes + i, LINE);
            sum += line;
            sum_of_sums += sum;
        }
        uint64_t mixed = uint64_t(start);
        for (const Line& line : {sum, sum_of_sums})
            for (int64_t i = 0; i < LINE / 8; i++) {
                mixed = (mixed ^ line[i]) * 0x9e3779b97f4a7c15u;
                mixed ^= mixed >> 29;
            }
        total += mixed;
    }
    return total;
}
