// Products of a matrix of weights with the activations of many tokens, by tiles (tiles.h).
//
// Tiles multiply numbers of 8 bits, or bfloat16. So activations come in parts, which are multiplied apart.

#pragma once

#include "prefetch.h"
#include "tiles.h"

namespace {

#if defined(GLASSGPT_TILES)

// ── 8-bit weights and activations that were rounded to 16 bits, whose two bytes are multiplied apart ────────

struct ByteTiles {
    typedef int8_t Weight;
    typedef Integers Sums;
    static constexpr int64_t ROWS = 2 * SIDE;  // of weights that are multiplied at once
    static constexpr int64_t COLUMNS = LINE;   // weights of a row in a tile
    static constexpr int64_t PARTS = 2;        // tiles of activations for each tile of weights
    static constexpr int64_t LEAST = 9;        // tokens: with fewer, vectors are as fast

    // For each COLUMNS a tile of upper bytes and one of lower bytes, of numbers times their token's `inverse`.
    static void lay(const float* x, const float* inverse, int64_t n_tokens, int64_t n, uint8_t* tiles) {
        for (int64_t i = 0; i < n; i += COLUMNS, tiles += PARTS * TILE) {
            alignas(LINE) int8_t upper[SIDE][LINE] = {}, lower[SIDE][LINE] = {};
            for (int64_t token = 0; token < n_tokens; token++) {
                for (int64_t k = 0; k < COLUMNS; k += WIDTH) {
                    const Vector number = load(x + token * n + i + k) * inverse[token];
                    const __m512i whole = _mm512_cvtps_epi32((__m512)number);  // the nearest
                    const __m512i upper_byte = _mm512_srai_epi32(whole, 8);
                    _mm_store_si128((__m128i*)&upper[token][k], _mm512_cvtepi32_epi8(upper_byte));
                    _mm_store_si128((__m128i*)&lower[token][k], _mm512_cvtepi32_epi8(whole));
                }
            }
            store_turned(tiles, upper);
            store_turned(tiles + TILE, lower);
        }
    }

    // y[b][token]: the sums of rows 16b to 16b + 15, exact, and so equal to the vectors'.
    static void dots(const int8_t* w, int64_t n, const uint8_t* x, const Behind<int8_t>& behind,
                     Integers (&y)[2][SIDE]) {
        begin_sums();
        for (int64_t i = 0; i < n; i += COLUMNS, x += PARTS * TILE) {
            prefetch<false, ROWS>(w, n, behind, i);
            _tile_loadd(4, (w + i), n);
            _tile_loadd(5, (w + SIDE * n + i), n);
            _tile_loadd(6, x, LINE);
            _tile_dpbssd(0, 4, 6);
            _tile_dpbssd(1, 5, 6);
            _tile_loadd(7, (x + TILE), LINE);
            _tile_dpbsud(2, 4, 7);
            _tile_dpbsud(3, 5, 7);
        }
        Words sums[4][SIDE];  // of upper bytes, for each b, then of lower ones
        store_sums(sums);
        for (int b = 0; b < 2; b++) {
            // The whole fits into 32 bits (Matrix::largest), which a part may leave: so added modulo 2³².
            for (int row = 0; row < SIDE; row++) y[b][row] = (Integers)((sums[b][row] << 8) + sums[2 + b][row]);
            turn(y[b]);
        }
    }
};

// ── bfloat16 weights and float32 activations, each the sum of three bfloat16 numbers ────────────────────────

// Each of the three has eight of 24 binary digits (Henry, Tang and Heinecke 2019, "Leveraging the bfloat16 Artificial
// Intelligence Datatype For Higher-Precision Computations", section II), and no product of them is rounded. Sums are as
// exact as vectors', in another order: a token gets other bits than alone. What is below 2⁻¹²⁶ counts as 0, and an
// infinite activation gives nan.
struct FloatTiles {
    typedef uint16_t Weight;
    typedef Vector Sums;
    static constexpr int64_t ROWS = 4 * SIDE, COLUMNS = LINE / 2, PARTS = 3, LEAST = 24;

    // For each COLUMNS a tile of the nearest bfloat16 numbers, one of what is left, and one of what is left then.
    static void lay(const float* x, const float*, int64_t n_tokens, int64_t n, uint8_t* tiles) {
        for (int64_t i = 0; i < n; i += COLUMNS) {
            alignas(LINE) uint16_t lines[PARTS][SIDE][COLUMNS] = {};
            for (int64_t token = 0; token < n_tokens; token++) {
                for (int64_t k = 0; k < COLUMNS; k += WIDTH) {
                    Vector rest = load(x + token * n + i + k);
                    for (auto& part : lines) {
                        const auto nearest = (__m256i)_mm512_cvtneps_pbh((__m512)rest);
                        _mm256_store_si256((__m256i*)&part[token][k], nearest);
                        rest -= as_vector((Words)_mm512_cvtepu16_epi32(nearest) << 16);
                    }
                }
            }
            for (const auto& part : lines) {
                store_turned(tiles, part);
                tiles += TILE;
            }
        }
    }

    static void dots(const uint16_t* w, int64_t n, const uint8_t* x, const Behind<uint16_t>& behind,
                     Vector (&y)[4][SIDE]) {
        begin_sums();
        for (int64_t i = 0; i < n; i += COLUMNS, x += PARTS * TILE) {
            prefetch<false, ROWS>(w, n, behind, i);
            _tile_loadd(4, x, LINE);
            _tile_loadd(5, (x + TILE), LINE);
            _tile_loadd(6, (x + 2 * TILE), LINE);
#define ADD_PRODUCTS(b)                                \
    _tile_loadd(7, (w + b * SIDE * n + i), (2 * n));   \
    _tile_dpbf16ps(b, 7, 4);                           \
    _tile_dpbf16ps(b, 7, 5);                           \
    _tile_dpbf16ps(b, 7, 6);
            ADD_PRODUCTS(0)
            ADD_PRODUCTS(1)
            ADD_PRODUCTS(2)
            ADD_PRODUCTS(3)
#undef ADD_PRODUCTS
        }
        store_sums(y);
        for (auto& sums : y) turn(sums);
    }
};

// ── One thread's share of a matrix ──────────────────────────────────────────────────────────────────────────

class TileProducts {
    const int64_t n_tokens, n_groups;  // of up to 16 tokens
    Numbers<uint8_t> activations, copy;

   public:
    // With all the memory that products of matrices with up to `widest` columns need, if they are `wanted`.
    TileProducts(bool wanted, int64_t n_tokens, int64_t widest)
        : n_tokens(n_tokens), n_groups((n_tokens + SIDE - 1) / SIDE) {
        if (!wanted) return;
        activations.reserve(n_groups * SIDE * widest * std::max(ByteTiles::PARTS, 2 * FloatTiles::PARTS));
        copy.reserve(widest * std::max(ByteTiles::ROWS, 2 * FloatTiles::ROWS));
    }

    // write(token, j, y) with y = weight[j] · x[token], for j from `first` to `last`: sixteen numbers at once, or one.
    // The matrix has `rows` rows of `n` weights.
    template <typename Kind, typename Write>
    void project(const typename Kind::Weight* weight, int64_t rows, int64_t n, int64_t first, int64_t last,
                 const float* x, const float* inverse, Write write) {
        if (first == last) return;
        const int64_t of_group = n / Kind::COLUMNS * Kind::PARTS * TILE;
        activations.resize(n_groups * of_group);
        for (int64_t g = 0, token = 0; g < n_groups; g++, token += SIDE)
            Kind::lay(x + token * n, inverse + token, std::min(n_tokens - token, SIDE), n, &activations[g * of_group]);
        for (int64_t j = first; j < last; j += Kind::ROWS) {
            const auto* w = weight + j * n;
            if (j + Kind::ROWS > rows) {  // tiles are loaded as a whole: the others of these are never written
                copy.resize(Kind::ROWS * n * sizeof *w);
                std::memcpy(copy.data(), w, (rows - j) * n * sizeof *w);
                w = reinterpret_cast<const typename Kind::Weight*>(copy.data());
            }
            for (int64_t g = 0; g < n_groups; g++) {
                const Behind<typename Kind::Weight> behind{w + Kind::ROWS * n, g, n_groups};
                typename Kind::Sums y[Kind::ROWS / SIDE][SIDE];
                Kind::dots(w, n, &activations[g * of_group], behind, y);
                for (int64_t token = g * SIDE; token < std::min(n_tokens, (g + 1) * SIDE); token++)
                    for (int64_t b = 0; b < Kind::ROWS / SIDE; b++)
                        write_up_to(last, token, j + b * SIDE, y[b][token % SIDE], write);
            }
        }
    }

   private:
    template <typename Sums, typename Write>
    static void write_up_to(int64_t last, int64_t token, int64_t j, Sums sums, Write write) {
        if (j + SIDE <= last) return write(token, j, sums);
        for (int64_t i = 0; j + i < last; i++) write(token, j + i, sums[i]);
    }
};
#else

struct ByteTiles {
    typedef int8_t Weight;
    static constexpr int64_t LEAST = INT64_MAX;
};
struct FloatTiles {
    typedef uint16_t Weight;
    static constexpr int64_t LEAST = INT64_MAX;
};

struct TileProducts {
    TileProducts(bool, int64_t, int64_t) {}
    template <typename Kind, typename... Any>
    void project(Any...) {}
};
#endif

}  // namespace
