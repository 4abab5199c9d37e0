// What reading a prompt takes beside its products and GELU: causal attention of many tokens at once.
//
// prompt.py describes the structure, and how many QUERIES there are, a second time, for Python.

#include <omp.h>

#include "vectors.h"

namespace {

struct Attention {
    const float *queries, *keys, *values;                  // (B, H, T, Dh), and G heads of the other two
    float* mixed;                                          // (B, T, H, Dh), without gaps
    float* panels;                                         // room for the keys, S of them: T in whole panels
    float* scratch;                                        // (threads, QUERIES, Dh + S)
    int64_t query_steps[3], key_steps[3], value_steps[3];  // numbers from a row, head, token to the next
    int64_t n_rows, n_heads, n_kv_heads, n_tokens, d_head;
};

// Six queries are taken at once, with a few registers full of keys, or of each value's numbers: 6 × 4 sums fit into 32
// registers, 6 × 2 into 16.
constexpr int QUERIES = 6, PARTS = REGISTERS == 32 ? 4 : 2;
constexpr int64_t PANEL = PARTS * WIDTH;

// A panel of keys, turned: their first numbers, then their second ones, …. What is beyond the last key is 0.
void turn(const float* keys, int64_t step, int64_t n, int64_t d_head, float* panel) {
    for (int64_t s = 0; s < PANEL; s++)
        for (int64_t i = 0; i < d_head; i++) panel[i * PANEL + s] = s < n ? keys[s * step + i] : 0;
}

// scores[j][s] = queries[j] · keys[s], for the keys of one panel.
void score(const float* queries, const float* panel, int64_t d_head, float* scores, int64_t apart) {
    Vector total[QUERIES][PARTS] = {};
    for (int64_t i = 0; i < d_head; i++)
        for (int j = 0; j < QUERIES; j++)
            for (int part = 0; part < PARTS; part++)
                total[j][part] += queries[j * d_head + i] * load(panel + i * PANEL + part * WIDTH);
    static_assert(QUERIES == 6 && PARTS <= 4);
#pragma GCC unroll 6  // a loop would have the sums go through memory first
    for (int j = 0; j < QUERIES; j++)
#pragma GCC unroll 4
        for (int part = 0; part < PARTS; part++) store(scores + j * apart + part * WIDTH, total[j][part]);
}

// Scores become shares of 1, but for the divisor, which is returned. Those from n to `end` become 0.
float shares(float* scores, int64_t n, int64_t end) {
    const int64_t n_whole = (n + WIDTH - 1) / WIDTH * WIDTH;
    std::fill(scores + n, scores + n_whole, -INFINITY);
    Vector largest = load(scores), total = {};
    for (int64_t s = WIDTH; s < n_whole; s += WIDTH)
        largest = load(scores + s) > largest ? load(scores + s) : largest;
    const float most = maximum(largest);
    for (int64_t s = 0; s < n_whole; s += WIDTH) {
        const Vector share = exponential(load(scores + s) - most);
        store(scores + s, share);
        total += share;
    }
    std::fill(scores + n, scores + std::max(end, n), 0.0f);
    return sum(total);
}

// N Vectors of Σ scores[j][s] · values[s] for each of six queries; the first `n_queries` are kept.
template <int N>
void mix(const float* scores, int64_t apart, const float* values, int64_t step, int64_t n, const float* divisor,
         float* mixed, int64_t mixed_step, int64_t n_queries) {
    Vector total[QUERIES][N] = {};
    for (int64_t s = 0; s < n; s++)
        for (int j = 0; j < QUERIES; j++)
            for (int i = 0; i < N; i++) total[j][i] += scores[j * apart + s] * load(values + s * step + i * WIDTH);
    for (int64_t j = 0; j < n_queries; j++)
        for (int i = 0; i < N; i++) store(mixed + j * mixed_step + i * WIDTH, total[j][i] / divisor[j]);
}

}  // namespace

// How many keys there are in a panel: whole panels need room.
extern "C" int32_t glassgpt_panel() {
    return PANEL;
}

// softmax(q kᵀ / √Dh) v, where each token looks at itself and those before it.
extern "C" void glassgpt_attention(const Attention& a, int32_t n_threads) {
    const int64_t T = a.n_tokens, d = a.d_head, H = a.n_heads, G = a.n_kv_heads;
    const int64_t n_panels = (T + PANEL - 1) / PANEL, n_blocks = (T + QUERIES - 1) / QUERIES;
    const auto panels_of = [&](int64_t row, int64_t group) {
        return a.panels + (row * G + group) * n_panels * d * PANEL;
    };
    const int64_t apart = n_panels * PANEL;
    const float scale = 1 / std::sqrt(float(d));

#pragma omp parallel num_threads(n_threads)
    {
        float* queries = a.scratch + omp_get_thread_num() * QUERIES * (d + apart);
        float* scores = queries + QUERIES * d;
#pragma omp for collapse(3) schedule(static)
        for (int64_t row = 0; row < a.n_rows; row++)
            for (int64_t group = 0; group < G; group++)
                for (int64_t p = 0; p < n_panels; p++)
                    turn(a.keys + row * a.key_steps[0] + group * a.key_steps[1] + p * PANEL * a.key_steps[2],
                         a.key_steps[2], T - p * PANEL, d, panels_of(row, group) + p * d * PANEL);
#pragma omp for collapse(3) schedule(dynamic, 8)
        for (int64_t row = 0; row < a.n_rows; row++)
            for (int64_t head = 0; head < H; head++)
                for (int64_t block = 0; block < n_blocks; block++) {
                    const int64_t group = head / (H / G), first = block * QUERIES;
                    const int64_t n_queries = std::min(int64_t(QUERIES), T - first), end = first + n_queries;
                    const float* q = a.queries + row * a.query_steps[0] + head * a.query_steps[1];
                    for (int64_t j = 0; j < QUERIES; j++)
                        for (int64_t i = 0; i < d; i++)
                            queries[j * d + i] = j < n_queries ? q[(first + j) * a.query_steps[2] + i] * scale : 0;
                    for (int64_t p = 0; p * PANEL < end; p++)
                        score(queries, panels_of(row, group) + p * d * PANEL, d, scores + p * PANEL, apart);
                    float divisor[QUERIES];
                    for (int64_t j = 0; j < QUERIES; j++)
                        divisor[j] = shares(scores + j * apart, std::min(first + j + 1, end), end);
                    const float* v = a.values + row * a.value_steps[0] + group * a.value_steps[1];
                    float* to = a.mixed + ((row * T + first) * H + head) * d;
                    int64_t i = 0;
                    for (; i + PANEL <= d; i += PANEL)
                        mix<PARTS>(scores, apart, v + i, a.value_steps[2], end, divisor, to + i, H * d, n_queries);
                    for (; i < d; i += WIDTH)
                        mix<1>(scores, apart, v + i, a.value_steps[2], end, divisor, to + i, H * d, n_queries);
                }
    }
}
