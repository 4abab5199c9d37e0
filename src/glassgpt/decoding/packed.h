// Matrices of weights in fewer bits, losing nothing: bfloat16 in 12 and float32 in 28, so that a token needs fewer bytes.
//
// The upper byte of either is its sign and all of its exponent but one bit. Of weights it is nearly always one of 16
// values, as eight exponents of this kind reach from the largest down to 1/65,536 of it: four bits say which value, and
// a table what it stands for. Of a group of weights in which there is one other byte, that byte is kept beside it; a group
// with more of them is read as it was.

#pragma once

#include "vectors.h"

namespace {

#if defined(__AVX512BW__)
constexpr bool PACKS = true;
#else
constexpr bool PACKS = false;  // registers half as long take about as long to unpack as is saved
#endif
constexpr int64_t GROUP = 8 * WIDTH;  // weights that are packed together
constexpr int64_t TABLE = 16;

template <typename Weight>
constexpr int64_t PACKED = GROUP * (2 * sizeof(Weight) - 1) / 2;  // bytes of a group

// The one weight of a group whose upper byte is not in the table, where there is one.
struct Rare {
    uint8_t place, upper;  // place: among the group's upper bytes as `unpack_words` has them; or one of these:
};
constexpr uint8_t NONE = 255, MANY = 254;
static_assert(GROUP <= MANY);

constexpr int64_t rare_bytes(int64_t rows, int64_t n_groups) {
    return (rows * n_groups * int64_t(sizeof(Rare)) + LINE - 1) / LINE * LINE;
}

// A matrix in one piece of memory: the table, what is rare in each group, and the groups. What is beyond a row's last
// whole group is not packed.
template <typename Weight, typename Byte = const uint8_t>
struct Packed {
    typedef std::conditional_t<std::is_const_v<Byte>, const Rare, Rare> RareWeight;
    int64_t n_groups;  // of a row
    Byte* upper;
    RareWeight* rare;
    Byte* groups;

    Packed(Byte* memory, int64_t rows, int64_t columns)
        : n_groups(columns / GROUP),
          upper(memory),
          rare(reinterpret_cast<RareWeight*>(memory + LINE)),
          groups(memory + LINE + rare_bytes(rows, n_groups)) {}

    RareWeight& rare_of(int64_t row, int64_t g) const { return rare[row * n_groups + g]; }
    Byte* group(int64_t row, int64_t g) const { return groups + (row * n_groups + g) * PACKED<Weight>; }
};

// ── Two Vectors of weights as one step of a product takes them: of bfloat16 those with even and with odd places ────────

struct Pair {
    Vector first, second;
};

Words load_words(const void* p) {
    Words words;
    std::memcpy(&words, p, sizeof words);
    return words;
}

// Two bfloat16 numbers are loaded as one word, whose halves become two float32 numbers by a shift and a mask.
Pair widened(Words two) { return {as_vector(two << 16), as_vector(two & 0xffff0000u)}; }

Pair load_pair(const uint16_t* weights) { return widened(load_words(weights)); }

Pair load_pair(const float* weights) { return {load(weights), load(weights + WIDTH)}; }

// Where the activations of pair number p begin, of n.
struct PairOfPlaces {
    int64_t first, second;
};
PairOfPlaces places(const uint16_t*, int64_t p, int64_t n) { return {p * WIDTH, n / 2 + p * WIDTH}; }
PairOfPlaces places(const float*, int64_t p, int64_t) { return {2 * p * WIDTH, 2 * p * WIDTH + WIDTH}; }

#if defined(__AVX512BW__)
// A table in each 16 bytes of a register, which is what looking up knows.
__m512i load_table(const uint8_t* upper) { return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)upper)); }

// Two registers of lower bytes and two of upper ones are interleaved, in each 16 bytes for itself.
template <bool RARE>
void unpack_words(const uint8_t* group, __m512i table, Rare rare, Words (&words)[4]) {
    const __m512i four_bits = _mm512_set1_epi8(15), both = _mm512_loadu_si512(group);
    const __m512i bits[2] = {both & four_bits, _mm512_srli_epi16(both, 4) & four_bits};
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        const __m512i lower = _mm512_loadu_si512(group + (1 + half) * 4 * WIDTH);
        __m512i upper = _mm512_shuffle_epi8(table, bits[half]);
        if (RARE && rare.place / 64 == half)
            upper = _mm512_mask_set1_epi8(upper, __mmask64(1) << rare.place % 64, char(rare.upper));
        words[2 * half] = (Words)_mm512_unpacklo_epi8(lower, upper);
        words[2 * half + 1] = (Words)_mm512_unpackhi_epi8(lower, upper);
    }
}

template <bool RARE>
void unpack(const uint16_t*, const uint8_t* group, __m512i table, Rare rare, Pair (&pairs)[4]) {
    Words words[4];
    unpack_words<RARE>(group, table, rare, words);
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) pairs[k] = widened(words[k]);
}

// Of float32 the upper halves are packed as bfloat16 numbers are, a pair's interleaved; the lower ones lie behind them.
template <bool RARE>
void unpack(const float*, const uint8_t* group, __m512i table, Rare rare, Pair (&pairs)[4]) {
    Words upper[4];
    unpack_words<RARE>(group, table, rare, upper);
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        const Words lower = load_words(group + PACKED<uint16_t> + k * 4 * WIDTH);
        pairs[k].first = as_vector(upper[k] << 16 | (lower & 0xffff));
        pairs[k].second = as_vector((upper[k] & 0xffff0000u) | lower >> 16);
    }
}

// The group's weights, which `weights` has, too.
template <typename Weight>
void read_group(const Packed<Weight>& packed, int64_t row, int64_t g, __m512i table, const Weight* weights,
                Pair (&pairs)[4]) {
    const Rare rare = packed.rare_of(row, g);
    const uint8_t* group = packed.group(row, g);
    if (__builtin_expect(rare.place == NONE, 1)) {
        unpack<false>(weights, group, table, rare, pairs);
    } else if (rare.place != MANY) {
        unpack<true>(weights, group, table, rare, pairs);
    } else {
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) pairs[k] = load_pair(weights + 2 * k * WIDTH);
    }
}

// What is rare among the weights.
Rare pack(const uint16_t* weights, const uint8_t* table, uint8_t* group) {
    __m512i both = {};
    Rare rare = {NONE, 0};
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        const __m512i first = _mm512_loadu_si512(weights + half * 4 * WIDTH);
        const __m512i second = _mm512_loadu_si512(weights + half * 4 * WIDTH + 2 * WIDTH);
        const __m512i byte = _mm512_set1_epi16(255);
        _mm512_storeu_si512(group + (1 + half) * 4 * WIDTH, _mm512_packus_epi16(first & byte, second & byte));
        const __m512i upper = _mm512_packus_epi16(_mm512_srli_epi16(first, 8), _mm512_srli_epi16(second, 8));
        __mmask64 unknown = ~__mmask64(0);
#pragma GCC unroll 16
        for (int bits = 0; bits < TABLE; bits++) {
            const __mmask64 these = _mm512_cmpeq_epi8_mask(upper, _mm512_set1_epi8(char(table[bits])));
            both |= _mm512_maskz_set1_epi8(these, char(half ? bits << 4 : bits));
            unknown &= ~these;
        }
        if (unknown) {
            const bool is_first = rare.place == NONE && !(unknown & (unknown - 1));
            const int place = __builtin_ctzll(unknown);
            uint8_t bytes[64];
            _mm512_storeu_si512(bytes, upper);
            rare = {is_first ? uint8_t(half * 64 + place) : MANY, bytes[place]};
        }
    }
    _mm512_storeu_si512(group, both);
    return rare;
}

Rare pack(const float* weights, const uint8_t* table, uint8_t* group) {
    uint16_t upper[GROUP];
    for (int k = 0; k < 4; k++) {
        const Words first = load_words(weights + 2 * k * WIDTH), second = load_words(weights + (2 * k + 1) * WIDTH);
        const Words upper_two = first >> 16 | (second & 0xffff0000u), lower_two = (first & 0xffff) | second << 16;
        std::memcpy(upper + 2 * k * WIDTH, &upper_two, sizeof upper_two);
        std::memcpy(group + PACKED<uint16_t> + k * 4 * WIDTH, &lower_two, sizeof lower_two);
    }
    return pack(upper, table, group);
}

template <typename Weight>
bool is_packed(const Packed<Weight>& packed, int64_t row, int64_t g, __m512i table, const Weight* weights) {
    Pair pairs[4];
    read_group(packed, row, g, table, weights, pairs);
    __m512i differences = {};
    for (int k = 0; k < 4; k++) {
        const Pair pair = load_pair(weights + 2 * k * WIDTH);
        differences |= (__m512i)pair.first ^ (__m512i)pairs[k].first;
        differences |= (__m512i)pair.second ^ (__m512i)pairs[k].second;
    }
    return !_mm512_test_epi64_mask(differences, differences);
}
#endif

}  // namespace
