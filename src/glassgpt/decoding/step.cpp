// One decoding step of our GPT on a CPU: a token of each row in, the logits of the next one out.
//
// A step reads every weight once and does little with it, so it can be no faster than memory is read. Three
// things bring it close to that: each core reads one unbroken run of a matrix's rows; all products of a step
// share one parallel region, with a barrier where the next needs the whole of the last; weights are read
// where they lie, as bfloat16 or 8-bit integers too, and widened in registers.
//
// Activations are float32. A bfloat16 weight is the upper half of a float32. An 8-bit weight is multiplied
// by an activation rounded to 16 bits; these products are summed exactly, as integers, and scaled once.
//
// Plain C++ that GCC and Clang turn into vectors of whatever width the processor has. native.py describes
// these structures a second time, for Python.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include <omp.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

constexpr int64_t WIDTH = 16;  // numbers in a Vector; the compiler splits it where registers are shorter
typedef float Vector __attribute__((vector_size(4 * WIDTH)));
typedef uint32_t Words __attribute__((vector_size(4 * WIDTH)));
typedef int32_t Integers __attribute__((vector_size(4 * WIDTH)));
typedef int16_t Shorts __attribute__((vector_size(4 * WIDTH)));
typedef int16_t HalfShorts __attribute__((vector_size(2 * WIDTH)));

enum Format : int32_t { FLOAT32, BFLOAT16, INT8 };

struct Matrix {
    const void* weight;  // (rows, columns)
    const float* scale;  // (rows): of INT8
    const float* bias;   // (rows), or null
    int64_t rows, columns;
    Format format;
    float largest;  // of INT8: the largest activation that cannot overflow a sum, at most 32767
};

struct Norm {
    const float *weight, *bias;  // (D); bias may be null
};

struct Block {
    Norm attention_norm, feedforward_norm;
    Matrix qkv, output, gate, up, down;  // gate without a weight: the feed-forward is gelu's
};

struct Model {
    const Block* blocks;
    Norm final_norm;
    Matrix head;
    int64_t n_blocks, n_heads, n_kv_heads, d_head, window;  // window 0: attention to everything
    float norm_eps;
    int32_t is_rmsnorm;
};

struct Step {
    float* x;            // (B, D): embeddings in; the residual stream
    float* logits;       // (B, V)
    void *keys, *values; // (L, B, G, max_tokens, Dh), in `cache_format`
    const int64_t* n_padding;  // (B), or null
    const float *cosine, *sine;  // (B or 1, Dh / 2), or null without rotary positions
    int64_t n_rows, n_tokens, max_tokens, rotary_stride;  // n_tokens: how many the cache holds
    Format cache_format;
};

Vector load(const float* p) {
    Vector v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

Vector as_vector(Words words) {
    Vector v;
    std::memcpy(&v, &words, sizeof v);
    return v;
}

Vector load(const uint16_t* p) {  // a bfloat16 number is the upper half of a float32
    uint16_t halves __attribute__((vector_size(2 * WIDTH)));
    std::memcpy(&halves, p, sizeof halves);
    return as_vector(__builtin_convertvector(halves, Words) << 16);
}

Shorts load_shorts(const void* p) {
    Shorts s;
    std::memcpy(&s, p, sizeof s);
    return s;
}

// total + a · b with neighbouring products added: compilers do not find this instruction by themselves
Integers multiply_add(Shorts a, Shorts b, Integers total) {
#if defined(__AVX512VNNI__)
    return (Integers)_mm512_dpwssd_epi32((__m512i)total, (__m512i)a, (__m512i)b);
#elif defined(__AVX512BW__)
    return total + (Integers)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    __m256i x[2], y[2], z[2];
    std::memcpy(x, &a, sizeof a), std::memcpy(y, &b, sizeof b);
    for (int i = 0; i < 2; i++) z[i] = _mm256_madd_epi16(x[i], y[i]);
    Integers products;
    std::memcpy(&products, z, sizeof products);
    return total + products;
#else
    HalfShorts x[2], y[2];
    std::memcpy(x, &a, sizeof a), std::memcpy(y, &b, sizeof b);
    for (int i = 0; i < 2; i++)
        total += __builtin_convertvector(x[i], Integers) * __builtin_convertvector(y[i], Integers);
    return total;
#endif
}

void store(float* p, Vector v) { std::memcpy(p, &v, sizeof v); }

// The sum of a Vector or of Integers: halves are added until four numbers are left.
template <typename Long>
auto sum(Long v) {
    typedef typename std::remove_reference<decltype(v[0])>::type Number;
    typedef Number Half __attribute__((vector_size(2 * WIDTH)));
    typedef Number Quarter __attribute__((vector_size(WIDTH)));
    Half halves[2];
    Quarter quarters[2];
    std::memcpy(halves, &v, sizeof v);
    halves[0] += halves[1];
    std::memcpy(quarters, halves, sizeof quarters);
    quarters[0] += quarters[1];
    return (quarters[0][0] + quarters[0][2]) + (quarters[0][1] + quarters[0][3]);
}

float maximum(Vector v) {
    float largest = v[0];
    for (int64_t i = 1; i < WIDTH; i++) largest = std::max(largest, v[i]);
    return largest;
}

// eˣ = 2ⁿ eʳ with n = x / ln 2 rounded, so that |r| ≤ ln 2 / 2, where a Taylor polynomial of degree 6 errs by
// 2⁻²³. Adding 1.5 · 2²³ rounds to a whole number, and leaves it in the lowest bits. What is no number stays none.
Vector exponential(Vector x) {
    constexpr float MAGIC = 12582912, LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f;
    x = x < -87.0f ? -87.0f - Vector{} : x;
    x = x > 88.0f ? 88.0f - Vector{} : x;
    const Vector shifted = x * 1.44269504f + MAGIC, n = shifted - MAGIC;
    const Vector r = x - n * LN2_HIGH - n * LN2_LOW;
    const Vector tail = 1 / 6.0f + r * (1 / 24.0f + r * (1 / 120.0f + r * (1 / 720.0f)));
    Words bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    return (1 + r + r * r * (0.5f + r * tail)) * as_vector((bits + 127) << 23);
}

Vector sigmoid(Vector x) { return 1 / (1 + exponential(-x)); }

uint16_t rounded(float number) {  // to the nearest bfloat16, ties to even; what is no number stays none
    uint32_t word;
    std::memcpy(&word, &number, 4);
    if (std::isnan(number)) return 0x7fc0;
    return uint16_t((word + 0x7fff + (word >> 16 & 1)) >> 16);
}

// ── Products of N rows of weights and ROWS rows of activations: y[j][row] = w[j] · x[row] ─────────────────

// An addition has to wait for the one before it to the same sum, some four cycles. The many sums of a block
// take turns anyway; a single one is kept as CHAINS sums that do.
template <int N, int ROWS>
constexpr int CHAINS = N * ROWS == 1 ? 4 : 1;

template <typename Sum, typename Number, int N, int ROWS>
void add_up(const Sum (&total)[CHAINS<N, ROWS>][N][ROWS], Number (&y)[N][ROWS]) {
    for (int j = 0; j < N; j++)
        for (int row = 0; row < ROWS; row++) {
            Sum all = total[0][j][row];
            for (int chain = 1; chain < CHAINS<N, ROWS>; chain++) all += total[chain][j][row];
            y[j][row] = sum(all);
        }
}

// A block of several rows is read side by side. Told early, the memory still sees one row after another.
template <int LINES>
void prefetch(const void* next) {
    if (LINES > 1)
        for (int line = 0; line < LINES; line++)
            __builtin_prefetch(static_cast<const char*>(next) + 64 * line, 0, 2);
}

template <int N, int ROWS>
void dots(const float* w, const float* x, int64_t n, float (&y)[N][ROWS]) {
    Vector total[CHAINS<N, ROWS>][N][ROWS] = {};
    for (int64_t start = 0; start < n; start += CHAINS<N, ROWS> * WIDTH) {
        prefetch<N>(w + N * (n + start));
        for (int chain = 0; chain < CHAINS<N, ROWS>; chain++) {
            const int64_t i = start + chain * WIDTH;
            Vector activations[ROWS];
            for (int row = 0; row < ROWS; row++) activations[row] = load(x + row * n + i);
            for (int j = 0; j < N; j++)
                for (int row = 0; row < ROWS; row++)
                    total[chain][j][row] += load(w + j * n + i) * activations[row];
        }
    }
    add_up<Vector, float, N, ROWS>(total, y);
}

// Two bfloat16 numbers are loaded as one word, whose halves become two float32 numbers by a shift and a
// mask: so `x` holds the activations with even indices first, then those with odd ones.
template <int N, int ROWS>
void dots(const uint16_t* w, const float* x, int64_t n, float (&y)[N][ROWS]) {
    constexpr int LOADS = CHAINS<N, ROWS> > 1 ? 2 : 1, ODD = LOADS - 1;
    Vector total[CHAINS<N, ROWS>][N][ROWS] = {};
    for (int64_t start = 0; start < n / 2; start += LOADS * WIDTH) {
        prefetch<N>(w + N * (n + 2 * start));
        for (int chain = 0; chain < 2 * LOADS; chain += 2) {
            const int64_t i = start + chain / 2 * WIDTH;
            Vector even[ROWS], odd[ROWS];
            for (int row = 0; row < ROWS; row++) {
                even[row] = load(x + row * n + i);
                odd[row] = load(x + row * n + n / 2 + i);
            }
            for (int j = 0; j < N; j++) {
                Words pairs;
                std::memcpy(&pairs, w + j * n + 2 * i, sizeof pairs);
                const Vector first = as_vector(pairs << 16), second = as_vector(pairs & 0xffff0000u);
                for (int row = 0; row < ROWS; row++) {
                    total[chain][j][row] += first * even[row];
                    total[chain + ODD][j][row] += second * odd[row];
                }
            }
        }
    }
    add_up<Vector, float, N, ROWS>(total, y);
}

// The same with two 8-bit numbers in a 16-bit word.
template <int N, int ROWS>
void dots(const int8_t* w, const int16_t* x, int64_t n, int32_t (&y)[N][ROWS]) {
    constexpr int ODD = CHAINS<N, ROWS> > 1 ? 1 : 0;
    Integers total[CHAINS<N, ROWS>][N][ROWS] = {};
    for (int64_t i = 0; i < n / 2; i += 2 * WIDTH) {
        prefetch<N>(w + N * (n + 2 * i));
        for (int j = 0; j < N; j++) {
            const Shorts pairs = load_shorts(w + j * n + 2 * i), first = (pairs << 8) >> 8, second = pairs >> 8;
            for (int row = 0; row < ROWS; row++) {
                Integers &even = total[0][j][row], &odd = total[ODD][j][row];
                even = multiply_add(first, load_shorts(x + row * n + i), even);
                odd = multiply_add(second, load_shorts(x + row * n + n / 2 + i), odd);
            }
        }
    }
    add_up<Integers, int32_t, N, ROWS>(total, y);
}

// ── One thread's share of the work ──────────────────────────────────────────────────────────────────────

struct Worker {
    int64_t index, count, n_rows;
    std::vector<float> normed, split, scale, scores;
    std::vector<int16_t> whole;

    struct Range {
        int64_t first, last;
    };
    Range share(int64_t n) const {  // boundaries between whole Vectors
        const auto start = [&](int64_t i) { return i == count ? n : n * i / count / WIDTH * WIDTH; };
        return {start(index), start(index + 1)};
    }

    // write(row, j, y) with y = weight[j] · x[row] + bias[j], for this thread's share of j. `x` is
    // (n_rows, columns), and each thread widens or rounds all of it for itself: that is cheaper than waiting.
    template <typename Write>
    void project(const Matrix& m, const float* x, Write write) {
        const auto biased = [&](int64_t row, int64_t j, float y) { write(row, j, m.bias ? y + m.bias[j] : y); };
        if (m.format == FLOAT32) {
            products<float>(m, x, biased);
        } else if (m.format == BFLOAT16) {
            split_pairs(x, m.columns);
            products<uint16_t>(m, split.data(), biased);
        } else {
            round_pairs(x, m.columns, m.largest);
            products<int8_t>(m, whole.data(), [&](int64_t row, int64_t j, int32_t y) {
                biased(row, j, float(y) * (scale[row] * m.scale[j]));
            });
        }
    }

    // One row of weights at a time streams fastest from memory. With four rows of activations or more it is
    // arithmetic that takes the time: a block of 6 × 4 sums fills the registers, and needs the fewest loads.
    template <typename Weight, typename Activation, typename Write>
    void products(const Matrix& m, const Activation* x, Write write) {
        const auto [first, last] = share(m.rows);
        int64_t j = first;
        if (n_rows >= 4)
            for (; j + 6 <= last; j += 6) block_of_rows<Weight, 6>(m, j, x, write);
        for (; j < last; j++) block_of_rows<Weight, 1>(m, j, x, write);
    }

    template <typename Weight, int N, typename Activation, typename Write>
    void block_of_rows(const Matrix& m, int64_t j, const Activation* x, Write write) {
        const int64_t n = m.columns;
        const auto w = static_cast<const Weight*>(m.weight) + j * n;
        const auto block = [&](auto rows, int64_t row) {
            decltype(Weight{} * Activation{}) y[N][rows];
            dots(w, x + row * n, n, y);
            for (int i = 0; i < N; i++)
                for (int r = 0; r < rows; r++) write(row + r, j + i, y[i][r]);
        };
        int64_t row = 0;
        for (; row + 4 <= n_rows; row += 4) block(std::integral_constant<int, 4>{}, row);
        for (; row < n_rows; row++) block(std::integral_constant<int, 1>{}, row);
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

    void round_pairs(const float* x, int64_t n, float limit) {
        whole.resize(n_rows * n);
        scale.resize(n_rows);
        for (int64_t row = 0; row < n_rows; row++) {
            const float* in = x + row * n;
            Vector largest = {}, zeros = {};  // 0 · x is no zero where x is infinite or no number
            for (int64_t i = 0; i < n; i += WIDTH) {
                const Vector v = load(in + i), size = v < 0 ? -v : v;
                largest = size > largest ? size : largest;
                zeros += v * 0;
            }
            const float size = maximum(largest), zero = sum(zeros);
            scale[row] = size / limit + zero;
            const float inverse = size > 0 && zero == 0 ? limit / size : 0;
            int16_t *even = &whole[row * n], *odd = even + n / 2;
            for (int64_t i = 0; i < n / 2; i++) {
                even[i] = int16_t(int32_t(std::nearbyint(in[2 * i] * inverse)));
                odd[i] = int16_t(int32_t(std::nearbyint(in[2 * i + 1] * inverse)));
            }
        }
    }

    // (x − mean) / √(variance + ε) · weight + bias, or without the mean: of all rows, into `normed`.
    const float* normalise(const Norm& norm, const float* x, int64_t n, const Model& model) {
        normed.resize(n_rows * n);
        for (int64_t row = 0; row < n_rows; row++) {
            const float* in = x + row * n;
            Vector total = {}, squares = {};
            for (int64_t i = 0; i < n; i += WIDTH) total += load(in + i);
            const float mean = model.is_rmsnorm ? 0 : sum(total) / float(n);
            for (int64_t i = 0; i < n; i += WIDTH) squares += (load(in + i) - mean) * (load(in + i) - mean);
            const float factor = 1 / std::sqrt(sum(squares) / float(n) + model.norm_eps);
            for (int64_t i = 0; i < n; i += WIDTH) {
                const Vector y = (load(in + i) - mean) * factor * load(norm.weight + i);
                store(&normed[row * n + i], norm.bias ? y + load(norm.bias + i) : y);
            }
        }
        return normed.data();
    }
};

// ── Attention of one query per row ──────────────────────────────────────────────────────────────────────

void put(float& place, float x) { place = x; }
void put(uint16_t& place, float x) { place = rounded(x); }

void rotate(float* head, const float* cosine, const float* sine, int64_t d_head) {
    for (int64_t i = 0; i < d_head / 2; i++) {
        const float first = head[i], second = head[i + d_head / 2];
        head[i] = first * cosine[i] - second * sine[i];
        head[i + d_head / 2] = second * cosine[i] + first * sine[i];
    }
}

// One key/value head of one row: its new key and value into the cache, then all query heads that it serves.
template <typename Number>
void attend(const Model& model, const Step& step, int64_t layer, int64_t row, int64_t group, float* qkv,
            float* mixed, std::vector<float>& scores) {
    const int64_t d = model.d_head, n_queries = model.n_heads / model.n_kv_heads;
    const int64_t place = (layer * step.n_rows + row) * model.n_kv_heads + group;
    Number* keys = static_cast<Number*>(step.keys) + place * step.max_tokens * d;
    Number* values = static_cast<Number*>(step.values) + place * step.max_tokens * d;
    float* query = qkv + group * n_queries * d;
    float* key = qkv + (model.n_heads + group) * d;
    const float* value = key + model.n_kv_heads * d;

    if (step.cosine) {
        const float *cosine = step.cosine + row * step.rotary_stride, *sine = step.sine + row * step.rotary_stride;
        rotate(key, cosine, sine, d);
        for (int64_t h = 0; h < n_queries; h++) rotate(query + h * d, cosine, sine, d);
    }
    for (int64_t i = 0; i < d; i++) {
        put(keys[step.n_tokens * d + i], key[i]);
        put(values[step.n_tokens * d + i], value[i]);
    }

    int64_t oldest = step.n_padding ? step.n_padding[row] : 0;
    if (model.window) oldest = std::max(oldest, step.n_tokens + 1 - model.window);
    keys += oldest * d, values += oldest * d;
    const int64_t n = step.n_tokens + 1 - oldest, n_whole = (n + WIDTH - 1) / WIDTH * WIDTH;
    scores.resize(n_whole);
    for (int64_t h = 0; h < n_queries; h++) {
        const float* q = query + h * d;
        float largest = -INFINITY;
        for (int64_t t = 0; t < n; t++) {
            Vector score = {};
            for (int64_t i = 0; i < d; i += WIDTH) score += load(q + i) * load(keys + t * d + i);
            scores[t] = sum(score) / std::sqrt(float(d));
            largest = std::max(largest, scores[t]);
        }
        std::fill(scores.begin() + n, scores.end(), -INFINITY);
        Vector total = {};
        for (int64_t t = 0; t < n_whole; t += WIDTH) {
            const Vector share = exponential(load(&scores[t]) - largest);
            store(&scores[t], share);
            total += share;
        }
        const float divisor = sum(total);
        for (int64_t i = 0; i < d; i += WIDTH) {
            Vector mean = {};
            for (int64_t t = 0; t < n; t++) mean += scores[t] * load(values + t * d + i);
            store(mixed + (group * n_queries + h) * d + i, mean / divisor);
        }
    }
}

// gelu: x / 2 · (1 + tanh u) = x · sigmoid(2u), u = √(2/π) (x + 0.044715 x³)
Vector gelu(Vector x) { return x * sigmoid(1.5957691216f * (x + 0.044715f * x * x * x)); }

Vector silu(Vector x) { return x * sigmoid(x); }

}  // namespace

extern "C" void glassgpt_step(const Model& model, const Step& step, int32_t n_threads) {
    const int64_t B = step.n_rows, D = model.n_heads * model.d_head, G = model.n_kv_heads;
    const int64_t QKV = model.blocks[0].qkv.rows, F = model.blocks[0].up.rows, V = model.head.rows;
    const bool gated = model.blocks[0].gate.weight;
    std::vector<float> qkv(B * QKV), mixed(B * D), wide(B * F), gate(gated ? B * F : 0);
    const auto attend_in = step.cache_format == FLOAT32 ? attend<float> : attend<uint16_t>;
    float* x = step.x;

#pragma omp parallel num_threads(n_threads)
    {
        Worker worker{omp_get_thread_num(), omp_get_num_threads(), B, {}, {}, {}, {}, {}};
        const auto into = [](std::vector<float>& y, int64_t n) {
            return [&y, n](int64_t row, int64_t j, float value) { y[row * n + j] = value; };
        };
        const auto add_to_stream = [&](int64_t row, int64_t j, float y) { x[row * D + j] += y; };

        for (int64_t layer = 0; layer < model.n_blocks; layer++) {
            const Block& block = model.blocks[layer];
            worker.project(block.qkv, worker.normalise(block.attention_norm, x, D, model), into(qkv, QKV));
#pragma omp barrier
#pragma omp for collapse(2) schedule(static)
            for (int64_t row = 0; row < B; row++)
                for (int64_t group = 0; group < G; group++)
                    attend_in(model, step, layer, row, group, &qkv[row * QKV], &mixed[row * D], worker.scores);
            worker.project(block.output, mixed.data(), add_to_stream);
#pragma omp barrier
            const float* normed = worker.normalise(block.feedforward_norm, x, D, model);
            worker.project(block.up, normed, into(wide, F));
            if (gated) worker.project(block.gate, normed, into(gate, F));
            const auto [first, last] = worker.share(F);
            for (int64_t row = 0; row < B; row++)
                for (int64_t i = row * F + first; i < row * F + last; i += WIDTH)
                    store(&wide[i], gated ? silu(load(&gate[i])) * load(&wide[i]) : gelu(load(&wide[i])));
#pragma omp barrier
            worker.project(block.down, wide.data(), add_to_stream);
#pragma omp barrier
        }
        worker.project(model.head, worker.normalise(model.final_norm, x, D, model),
                       [&](int64_t row, int64_t j, float y) { step.logits[row * V + j] = y; });
    }
}
