// Products of a matrix of weights with some rows of activations, shared among threads.
//
// A bfloat16 weight is the upper half of a float32. An 8-bit weight is multiplied by an activation rounded to 16
// bits; these products are summed exactly, as integers, and scaled once.

#pragma once

#include "packed.h"
#include "prefetch.h"
#include "tile_products.h"
#include "vectors.h"

namespace {

enum Format : int32_t { FLOAT32, BFLOAT16, INT8 };

struct Matrix {
    const void* weight;  // (rows, columns)
    const float* scale;  // (rows): of INT8
    const float* bias;   // (rows), or null
    int64_t rows, columns;
    Format format;
    float largest;          // of INT8: the largest activation that cannot overflow a sum, at most 32767
    const uint8_t* packed;  // of FLOAT32 and BFLOAT16: the same weights once more, as Packed; or null
};

// ── Products of N rows of weights and ROWS rows of activations: y[j][row] = w[j] · x[row] ─────────────────

// The loops are written out by the compiler, as one over sums would have them all go through memory first.
template <typename Sum, typename Number, int N, int ROWS>
void add_up(const Sum (&total)[N][ROWS], Number (&y)[N][ROWS]) {
    static_assert(N <= 6 && ROWS <= 4);
#pragma GCC unroll 6
    for (int j = 0; j < N; j++) {
        if constexpr (ROWS == 4) {
            const auto four = four_sums(total[j]);
            std::memcpy(y[j], &four, sizeof four);
        } else {
#pragma GCC unroll 4
            for (int row = 0; row < ROWS; row++) y[j][row] = sum(total[j][row]);
        }
    }
}

// The rows of weights lie `apart` numbers from one another.
template <bool FAR, int N, int ROWS>
void dots(const float* w, int64_t apart, const float* x, int64_t n, const Behind<float>& behind,
          float (&y)[N][ROWS]) {
    Vector total[N][ROWS] = {};
    for (int64_t i = 0; i < n; i += WIDTH) {
        prefetch<FAR, N>(w, apart, behind, i);
        if constexpr (FUSED && 1 < N && N < ROWS) {  // the weights stay in registers, and each activation is loaded once
            Vector weights[N];
            for (int j = 0; j < N; j++) weights[j] = in_register(load(w + j * apart + i));
            for (int row = 0; row < ROWS; row++) {
                const Vector activations = in_register(load(x + row * n + i));
                for (int j = 0; j < N; j++)
                    total[j][row] = multiply_add(weights[j], activations, total[j][row]);
            }
        } else {
            Vector activations[ROWS];
            for (int row = 0; row < ROWS; row++) activations[row] = load(x + row * n + i);
            for (int j = 0; j < N; j++) {
                const Vector weights = in_register(load(w + j * apart + i));
                for (int row = 0; row < ROWS; row++)
                    total[j][row] = multiply_add(weights, activations[row], total[j][row]);
            }
        }
    }
    add_up(total, y);
}

// Pairs of bfloat16 numbers: so `x` holds the activations with even indices first, then those with odd ones.
template <bool FAR, int N, int ROWS>
void dots(const uint16_t* w, int64_t apart, const float* x, int64_t n, const Behind<uint16_t>& behind,
          float (&y)[N][ROWS]) {
    Vector total[N][ROWS] = {};
    for (int64_t i = 0; i < n / 2; i += WIDTH) {
        prefetch<FAR, N>(w, apart, behind, 2 * i);
        Vector even[ROWS], odd[ROWS];
        for (int row = 0; row < ROWS; row++) {
            even[row] = load(x + row * n + i);
            odd[row] = load(x + row * n + n / 2 + i);
        }
        for (int j = 0; j < N; j++) {
            const Pair weights = load_pair(w + j * apart + 2 * i);
            for (int row = 0; row < ROWS; row++) {
                total[j][row] = multiply_add(weights.first, even[row], total[j][row]);
                total[j][row] = multiply_add(weights.second, odd[row], total[j][row]);
            }
        }
    }
    add_up(total, y);
}

#if defined(__AVX512BW__)
// The same sums of float32 or bfloat16 numbers, in the same order, with packed weights. What is not packed
// `w` has, where the matrix begins; here the rows are `row`, `row` + `apart`, ….
template <typename Weight, int N, int ROWS>
void dots(const Packed<Weight>& packed, const Weight* w, int64_t row, int64_t apart, const float* x, int64_t n,
          float (&y)[N][ROWS]) {
    Vector total[N][ROWS] = {};
    const __m512i table = load_table(packed.upper);
    const auto add = [&](int j, Pair weights, const Pair (&activations)[ROWS]) {
#pragma GCC unroll 2
        for (int r = 0; r < ROWS; r++) {
            total[j][r] = multiply_add(weights.first, activations[r].first, total[j][r]);
            total[j][r] = multiply_add(weights.second, activations[r].second, total[j][r]);
        }
    };
    const auto activations_of = [&](int64_t p, Pair (&activations)[ROWS]) {
        const auto [first, second] = places(w, p, n);
#pragma GCC unroll 2
        for (int r = 0; r < ROWS; r++) {
            activations[r] = {load(x + r * n + first), load(x + r * n + second)};
            if (ROWS == 1)
                activations[r] = {in_register(activations[r].first), in_register(activations[r].second)};
        }
    };
    for (int64_t g = 0; g < packed.n_groups; g++) {
        Pair activations[4][ROWS];
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) activations_of(4 * g + k, activations[k]);
#pragma GCC unroll 6
        for (int j = 0; j < N; j++) {
            const uint8_t* group = packed.group(row + j * apart, g);
            for (int64_t i = 0; i < PACKED<Weight>; i += LINE) prefetch_far(group + AHEAD_PACKED + i);
            Pair weights[4];
            read_group(packed, row + j * apart, g, table, w + (row + j * apart) * n + g * GROUP, weights);
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) add(j, weights[k], activations[k]);
        }
    }
    for (int64_t p = packed.n_groups * 4; p < n / (2 * WIDTH); p++) {
        Pair activations[ROWS];
        activations_of(p, activations);
#pragma GCC unroll 6
        for (int j = 0; j < N; j++) add(j, load_pair(w + (row + j * apart) * n + 2 * p * WIDTH), activations);
    }
    add_up(total, y);
}
#endif

// Two 8-bit numbers are loaded as one 16-bit word, as two bfloat16 numbers are as one of 32.
template <bool FAR, int N, int ROWS>
void dots(const int8_t* w, int64_t apart, const int16_t* x, int64_t n, const Behind<int8_t>& behind,
          int32_t (&y)[N][ROWS]) {
    Integers total[N][ROWS] = {};
    for (int64_t i = 0; i < n / 2; i += 2 * WIDTH) {
        prefetch<FAR, N>(w, apart, behind, 2 * i);
        for (int j = 0; j < N; j++) {
            const Shorts pairs = load_shorts(w + j * apart + 2 * i);
            const Shorts first = (pairs << 8) >> 8, second = pairs >> 8;
            for (int row = 0; row < ROWS; row++) {
                total[j][row] = multiply_add(first, load_shorts(x + row * n + i), total[j][row]);
                total[j][row] = multiply_add(second, load_shorts(x + row * n + n / 2 + i), total[j][row]);
            }
        }
    }
    add_up(total, y);
}

// Of a matrix in that format: rows of activations with which tiles, where there are some, are faster.
constexpr int64_t least_for_tiles(Format format) {
    return format == INT8 ? ByteTiles::LEAST : format == BFLOAT16 ? FloatTiles::LEAST : INT64_MAX;
}

// ── One thread's share of the work ──────────────────────────────────────────────────────────────────────

struct Worker {
    int64_t n_rows, index = 0, count = 1;
    bool has_tiles, reads_copies;
    TileProducts tiles;
    Numbers<float> split, scale, inverse;
    Numbers<int16_t> whole;

    // With all the memory that products of matrices with up to `widest` columns need.
    Worker(int64_t n_rows, int64_t widest, bool has_tiles, bool reads_copies)
        : n_rows(n_rows), has_tiles(has_tiles), reads_copies(reads_copies), tiles(has_tiles, n_rows, widest) {
        split.reserve(n_rows * widest);
        scale.reserve(n_rows);
        inverse.reserve(n_rows);
        whole.reserve(n_rows * widest);
    }

    struct Range {
        int64_t first, last;
    };
    Range share(int64_t n) const {  // boundaries between whole lines of float32
        const auto start = [&](int64_t i) { return i == count ? n : n * i / count / 16 * 16; };
        return {start(index), start(index + 1)};
    }

    // write(row, j, y) with y = weight[j] · x[row] + bias[j], for this thread's share of j; or with a Vector of those of
    // neighbouring j. `x` is (n_rows, columns).
    template <typename Write>
    void project(const Matrix& m, const float* x, Write write) {
        const auto biased = [&](int64_t row, int64_t j, auto y) {
            write(row, j, m.bias ? y + load_as<decltype(y)>(m.bias + j) : y);
        };
        // Written as one instruction, so that no compiler rounds the product in one block and not in another: a row
        // gets the same logits in any batch, and by tiles.
        const auto scaled = [&](int64_t row, int64_t j, auto whole) {
            const auto y = as_float(whole);
            typedef std::remove_const_t<decltype(y)> Number;
            const Number bias = m.bias ? load_as<Number>(m.bias + j) : Number{};
            write(row, j, multiply_add(y, scale[row] * load_as<Number>(m.scale + j), bias));
        };
        const bool by_tiles = has_tiles && n_rows >= least_for_tiles(m.format);
        if (m.format == FLOAT32) {
            products<float>(m, x, biased);
        } else if (m.format == BFLOAT16) {
            if (by_tiles) return tile_products<FloatTiles>(m, x, biased);
            split_pairs(x, m.columns);
            products<uint16_t>(m, split.data(), biased);
        } else {
            find_scales(x, m.columns, m.largest);
            if (by_tiles) return tile_products<ByteTiles>(m, x, scaled);
            round_pairs(x, m.columns);
            products<int8_t>(m, whole.data(), scaled);
        }
    }

    template <typename Kind, typename Write>
    void tile_products(const Matrix& m, const float* x, Write write) {
        const auto [first, last] = share(m.rows);
        const auto weight = static_cast<const typename Kind::Weight*>(m.weight);
        tiles.project<Kind>(weight, m.rows, m.columns, first, last, x, inverse.data(), write);
    }

    // With up to three rows of activations it is memory that takes the time. It answers a few long runs, read
    // side by side, sooner than one. With more it is arithmetic: of the blocks whose sums fit into 32 registers
    // 6 × 4 needs the fewest loads, and of those that fit into 16 it is 3 × 4. The rest gets a smaller block.
    template <typename Weight, typename Activation, typename Write>
    void products(const Matrix& m, const Activation* x, Write write) {
        auto [j, last] = share(m.rows);
        if (n_rows < 4) {
            const int64_t n = (last - j) / RUNS, end = j + n;
            for (; j < end; j++) block_of_rows<true, Weight, RUNS>(m, j, n, x, write);
            j += (RUNS - 1) * n;
        } else {
            constexpr int N = REGISTERS == 32 ? 6 : 3;
            for (; j + N <= last; j += N) block_of_rows<false, Weight, N>(m, j, 1, x, write);
        }
        for (; j < last; j++) block_of_rows<true, Weight, 1>(m, j, 1, x, write);
    }

    // Rows j, j + apart, … of the weights, with all rows of activations.
    template <bool FAR, typename Weight, int N, typename Activation, typename Write>
    void block_of_rows(const Matrix& m, int64_t j, int64_t apart, const Activation* x, Write write) {
        const int64_t n = m.columns;
        const auto w = static_cast<const Weight*>(m.weight) + j * n;
        const auto block = [&](auto rows, int64_t row) {
            decltype(Weight{} * Activation{}) y[N][rows];
            const Behind<Weight> behind{w + N * n, row / 4, (n_rows + 3) / 4};
            const auto plain = [&] { dots<FAR>(w, apart * n, x + row * n, n, behind, y); };
            if constexpr (PACKS && FAR && N == RUNS && rows < 3 && !std::is_same_v<Weight, int8_t>) {
                if (m.packed && reads_copies)
                    dots(Packed<Weight>(m.packed, m.rows, n), w - j * n, j, apart, x + row * n, n, y);
                else
                    plain();
            } else {
                plain();
            }
            for (int i = 0; i < N; i++)
                for (int r = 0; r < rows; r++) write(row + r, j + i * apart, y[i][r]);
        };
        int64_t row = 0;
        for (; row + 4 <= n_rows; row += 4) block(std::integral_constant<int, 4>{}, row);
        if (n_rows - row == 3) block(std::integral_constant<int, 3>{}, row);
        if (n_rows - row == 2) block(std::integral_constant<int, 2>{}, row);
        if (n_rows - row == 1) block(std::integral_constant<int, 1>{}, row);
    }

    void split_pairs(const float* x, int64_t n) {
        split.resize(n_rows * n);
        for (int64_t row = 0; row < n_rows; row++) {
            const float* in = x + row * n;
            float *even = &split[row * n], *odd = even + n / 2;
            for (int64_t i = 0; i < n / 2; i++) {
                even[i] = in[2 * i];
                odd[i] = in[2 * i + 1];
            }
        }
    }

    // What each row is to be multiplied with to fill 16 bits up to `limit`, and its results afterwards.
    void find_scales(const float* x, int64_t n, float limit) {
        scale.resize(n_rows), inverse.resize(n_rows);
        for (int64_t row = 0; row < n_rows; row++) {
            Vector largest = {}, zeros = {};  // 0 · x is no zero where x is infinite or no number
            for (int64_t i = row * n; i < row * n + n; i += WIDTH) {
                const Vector v = load(x + i), size = v < 0 ? -v : v;
                largest = size > largest ? size : largest;
                zeros += v * 0;
            }
            const float size = maximum(largest), zero = sum(zeros);
            scale[row] = size / limit + zero;
            inverse[row] = size > 1e-30f && zero == 0 ? limit / size : 0;  // less is as good as 0
        }
    }

    void round_pairs(const float* x, int64_t n) {
        whole.resize(n_rows * n);
        for (int64_t row = 0; row < n_rows; row++) {
            const float* in = x + row * n;
            int16_t *even = &whole[row * n], *odd = even + n / 2;
            for (int64_t i = 0; i < n / 2; i++) {
                even[i] = int16_t(int32_t(std::nearbyint(in[2 * i] * inverse[row])));
                odd[i] = int16_t(int32_t(std::nearbyint(in[2 * i + 1] * inverse[row])));
            }
        }
    }
};

}  // namespace
