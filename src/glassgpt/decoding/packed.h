// bfloat16 in 12 bits, losing nothing: a token then needs three quarters of the bytes.
//
// The upper byte of a bfloat16 number is its sign and all of its exponent but one bit. Of weights it is nearly always
// one of 16 values, as eight exponents of this kind reach from the largest down to 1/65,536 of it: four bits say which
// value, and a table what it stands for. A group of weights in which there is another byte is rare, and read as it was.

#pragma once

#include "vectors.h"

namespace {

#if defined(__AVX512BW__)
constexpr bool PACKS = true;
#else
constexpr bool PACKS = false;  // registers half as long take about as long to unpack as is saved
#endif
constexpr int64_t GROUP = 8 * WIDTH;    // weights: four registers of them
constexpr int64_t PACKED = 12 * WIDTH;  // bytes: a register of twice four bits, two of lower bytes
constexpr int64_t TABLE = 16;

constexpr int64_t flags_bytes(int64_t rows, int64_t n_groups) { return (rows * n_groups + LINE - 1) / LINE * LINE; }

// A matrix of bfloat16 numbers in one piece of memory: the table, a flag for each group that is rare, and the groups.
// What is beyond a row's last whole group is not packed.
template <typename Byte>
struct Packed {
    int64_t n_groups;  // of a row
    Byte *upper, *rare, *groups;

    Packed(Byte* memory, int64_t rows, int64_t columns)
        : n_groups(columns / GROUP),
          upper(memory),
          rare(memory + LINE),
          groups(rare + flags_bytes(rows, n_groups)) {}

    Byte& is_rare(int64_t row, int64_t g) const { return rare[row * n_groups + g]; }
    Byte* group(int64_t row, int64_t g) const { return groups + (row * n_groups + g) * PACKED; }
};

#if defined(__AVX512BW__)
// A table in each 16 bytes of a register, which is what looking up knows.
__m512i load_table(const uint8_t* upper) { return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)upper)); }

// Two registers of lower bytes and two of upper ones are interleaved, in each 16 bytes for itself.
void unpack(const uint8_t* group, __m512i table, Words (&pairs)[4]) {
    const __m512i four_bits = _mm512_set1_epi8(15), both = _mm512_loadu_si512(group);
    const __m512i bits[2] = {both & four_bits, _mm512_srli_epi16(both, 4) & four_bits};
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        const __m512i lower = _mm512_loadu_si512(group + (1 + half) * 4 * WIDTH);
        const __m512i upper = _mm512_shuffle_epi8(table, bits[half]);
        pairs[2 * half] = (Words)_mm512_unpacklo_epi8(lower, upper);
        pairs[2 * half + 1] = (Words)_mm512_unpackhi_epi8(lower, upper);
    }
}

// Whether all upper bytes are in the table.
bool pack(const uint16_t* weights, const uint8_t* table, uint8_t* group) {
    __m512i both = {};
    __mmask64 known[2] = {};
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        const __m512i first = _mm512_loadu_si512(weights + half * 4 * WIDTH);
        const __m512i second = _mm512_loadu_si512(weights + half * 4 * WIDTH + 2 * WIDTH);
        const __m512i byte = _mm512_set1_epi16(255);
        _mm512_storeu_si512(group + (1 + half) * 4 * WIDTH, _mm512_packus_epi16(first & byte, second & byte));
        const __m512i upper = _mm512_packus_epi16(_mm512_srli_epi16(first, 8), _mm512_srli_epi16(second, 8));
#pragma GCC unroll 16
        for (int bits = 0; bits < TABLE; bits++) {
            const __mmask64 these = _mm512_cmpeq_epi8_mask(upper, _mm512_set1_epi8(char(table[bits])));
            both |= _mm512_maskz_set1_epi8(these, char(half ? bits << 4 : bits));
            known[half] |= these;
        }
    }
    _mm512_storeu_si512(group, both);
    return (known[0] & known[1]) == ~__mmask64(0);
}

bool is_packed(const uint8_t* group, __m512i table, const uint16_t* weights) {
    Words pairs[4];
    unpack(group, table, pairs);
    __m512i differences = {};
    for (int k = 0; k < 4; k++) differences |= (__m512i)pairs[k] ^ _mm512_loadu_si512(weights + k * 2 * WIDTH);
    return !_mm512_test_epi64_mask(differences, differences);
}
#endif

}  // namespace
