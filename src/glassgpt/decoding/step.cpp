// One decoding step of our GPT on a CPU: a token or a few of each row in, the logits behind each of them out.
//
// A step reads every weight once and does little with it, so it can be no faster than memory is read. Three things
// bring it close to that: each core reads a few unbroken runs of a matrix's rows side by side; all products of a step
// share one parallel region, with a barrier where the next needs the whole of the last; weights are read where they
// lie, as bfloat16 or 8-bit integers too, and widened in registers, or from a packed copy (packed.h) of float32 or
// bfloat16, where that is faster. Activations are float32. With many rows it is arithmetic that takes the time, and
// where there are tiles (tile_products.h), they do it.
//
// native.py describes these structures a second time, for Python.

#include <omp.h>

#include "products.h"

namespace {

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
    Matrix token_embedding, position_embedding, head;  // position_embedding may be without a weight
    const float *cosine, *sine;  // (context_length, Dh / 2), or null without rotary positions
    int64_t n_blocks, n_heads, n_kv_heads, d_head, window;  // window 0: attention to everything
    float norm_eps;
    int32_t is_rmsnorm;
};

struct Step {
    const int64_t* token_ids;  // (B, T)
    float* logits;             // (B, T, V)
    void *keys, *values;       // (L, B, G, max_tokens, Dh), in `cache_format`
    const int64_t* n_padding;  // (B), or null
    int64_t n_rows, n_new, n_tokens, max_tokens;  // B; T; how many the cache holds, and can hold
    Format cache_format;
    int32_t reads_copies;  // of matrices that are packed
};

// Where a row's new token t stands, counted from the row's first token that is no padding.
int64_t position(const Step& step, int64_t row, int64_t t) {
    const int64_t column = step.n_tokens + t;
    if (!step.n_padding) return column;
    return std::clamp(column - step.n_padding[row], int64_t(0), column);
}

void add_row(const Matrix& m, int64_t row, float* x) {
    const int64_t start = row * m.columns;
    for (int64_t i = 0; i < m.columns; i++) {
        if (m.format == FLOAT32) x[i] += static_cast<const float*>(m.weight)[start + i];
        if (m.format == BFLOAT16) x[i] += widened(static_cast<const uint16_t*>(m.weight)[start + i]);
        if (m.format == INT8) x[i] += m.scale[row] * float(static_cast<const int8_t*>(m.weight)[start + i]);
    }
}

// y = (x − mean) / √(variance + ε) · weight + bias for each row of x, or the same without the mean.
void normalise(const Model& model, const Norm& norm, const Numbers<float>& x, Numbers<float>& y,
               int64_t D) {
    for (int64_t row = 0; row < int64_t(y.size()); row += D) {
        Vector total = {}, squares = {};
        for (int64_t i = row; i < row + D; i += WIDTH) total += load(&x[i]);
        const float mean = model.is_rmsnorm ? 0 : sum(total) / float(D);
        for (int64_t i = row; i < row + D; i += WIDTH) squares += (load(&x[i]) - mean) * (load(&x[i]) - mean);
        const float factor = 1 / std::sqrt(sum(squares) / float(D) + model.norm_eps);
        for (int64_t i = 0; i < D; i += WIDTH) {
            const Vector scaled = (load(&x[row + i]) - mean) * factor * load(norm.weight + i);
            store(&y[row + i], norm.bias ? scaled + load(norm.bias + i) : scaled);
        }
    }
}

// ── Attention of one new token ──────────────────────────────────────────────────────────────────────────

void rotate(float* head, const float* cosine, const float* sine, int64_t d_head) {
    for (int64_t i = 0; i < d_head / 2; i++) {
        const float first = head[i], second = head[i + d_head / 2];
        head[i] = first * cosine[i] - second * sine[i];
        head[i + d_head / 2] = second * cosine[i] + first * sine[i];
    }
}

// Σ scores[s] · values[s], N Vectors of it: so many sums that none waits for its last addition.
template <int N, typename Number>
void mix(const float* scores, const Number* values, int64_t n, int64_t d_head, float divisor, float* mixed) {
    Vector total[N] = {};
    for (int64_t s = 0; s < n; s++)
        for (int i = 0; i < N; i++) total[i] += scores[s] * load(values + s * d_head + i * WIDTH);
    for (int i = 0; i < N; i++) store(mixed + i * WIDTH, total[i] / divisor);
}

// One key/value head of a row's new token t: key and value into the cache, then all query heads that it serves.
template <typename Number>
void attend(const Model& model, const Step& step, int64_t layer, int64_t row, int64_t t, int64_t group, float* qkv,
            float* mixed, Numbers<float>& scores) {
    const int64_t d = model.d_head, n_queries = model.n_heads / model.n_kv_heads, column = step.n_tokens + t;
    const int64_t place = (layer * step.n_rows + row) * model.n_kv_heads + group;
    Number* keys = static_cast<Number*>(step.keys) + place * step.max_tokens * d;
    Number* values = static_cast<Number*>(step.values) + place * step.max_tokens * d;
    float* query = qkv + group * n_queries * d;
    float* key = qkv + (model.n_heads + group) * d;
    const float* value = key + model.n_kv_heads * d;

    if (model.cosine) {
        const float* cosine = model.cosine + position(step, row, t) * (d / 2);
        const float* sine = model.sine + position(step, row, t) * (d / 2);
        rotate(key, cosine, sine, d);
        for (int64_t h = 0; h < n_queries; h++) rotate(query + h * d, cosine, sine, d);
    }
    for (int64_t i = 0; i < d; i += WIDTH) {
        store(keys + column * d + i, load(key + i));
        store(values + column * d + i, load(value + i));
    }

    int64_t oldest = column - position(step, row, t);  // padding, too, sees itself: its position is 0
    if (model.window) oldest = std::max(oldest, column + 1 - model.window);
    keys += oldest * d, values += oldest * d;
    const int64_t n = column + 1 - oldest, n_whole = (n + WIDTH - 1) / WIDTH * WIDTH;
    const float scale = 1 / std::sqrt(float(d));
    scores.resize(n_whole);
    for (int64_t h = 0; h < n_queries; h++) {
        const float* q = query + h * d;
        float largest = -INFINITY;
        for (int64_t s = 0; s < n; s++) {
            for (int64_t i = 0; i < d; i += 64 / sizeof(Number)) __builtin_prefetch(values + s * d + i);
            Vector score = {};
            for (int64_t i = 0; i < d; i += WIDTH) score += load(q + i) * load(keys + s * d + i);
            scores[s] = sum(score) * scale;
            largest = std::max(largest, scores[s]);
        }
        std::fill(scores.begin() + n, scores.end(), -INFINITY);
        Vector total = {};
        for (int64_t s = 0; s < n_whole; s += WIDTH) {
            const Vector share = exponential(load(&scores[s]) - largest);
            store(&scores[s], share);
            total += share;
        }
        const float divisor = sum(total);
        float* to = mixed + (group * n_queries + h) * d;
        int64_t i = 0;
        for (; i + 4 * WIDTH <= d; i += 4 * WIDTH) mix<4>(scores.data(), values + i, n, d, divisor, to + i);
        for (; i < d; i += WIDTH) mix<1>(scores.data(), values + i, n, d, divisor, to + i);
    }
}

// What a thread has for itself: taken before they begin, as none of them can say that there is too little.
struct alignas(LINE) Own {
    Worker worker;
    Numbers<float> normed, scores;

    Own(const Step& step, int64_t D, int64_t F, bool has_tiles)
        : worker(step.n_rows * step.n_new, std::max(D, F), has_tiles, step.reads_copies) {
        normed.reserve(step.n_rows * step.n_new * D);
        scores.reserve(step.n_tokens + step.n_new + WIDTH);
    }
};

void read_tokens(const Model& model, const Step& step, int32_t n_threads) {
    const int64_t B = step.n_rows, T = step.n_new, N = B * T;
    const int64_t D = model.n_heads * model.d_head, G = model.n_kv_heads;
    const int64_t QKV = model.blocks[0].qkv.rows, F = model.blocks[0].up.rows, V = model.head.rows;
    const bool gated = model.blocks[0].gate.weight;
    // x is the residual stream
    Numbers<float> x(N * D), qkv(N * QKV), mixed(N * D), wide(N * F), gate(gated ? N * F : 0);
    const int64_t least = std::min(least_for_tiles(model.head.format), least_for_tiles(model.blocks[0].up.format));
    const bool has_tiles = N >= least && tiles_are_allowed();
    std::vector<Own> own;
    own.reserve(n_threads);
    for (int32_t i = 0; i < n_threads; i++) own.emplace_back(step, D, F, has_tiles);
    const auto attend_in = step.cache_format == FLOAT32 ? attend<float> : attend<uint16_t>;
    for (int64_t i = 0; i < N; i++) {
        add_row(model.token_embedding, step.token_ids[i], &x[i * D]);
        if (model.position_embedding.weight)
            add_row(model.position_embedding, position(step, i / T, i % T), &x[i * D]);
    }

#pragma omp parallel num_threads(n_threads)
    {
        const Tiles tiles(has_tiles);
        // Each thread normalises everything for itself: that is cheaper than waiting for the others.
        auto& [worker, normed, scores] = own[omp_get_thread_num()];
        worker.index = omp_get_thread_num(), worker.count = omp_get_num_threads();
        normed.resize(N * D);
        const auto into = [](Numbers<float>& y, int64_t n) {
            return [&y, n](int64_t row, int64_t j, auto value) { store(&y[row * n + j], value); };
        };
        const auto add_to_stream = [&](int64_t row, int64_t j, auto y) {
            float* to = &x[row * D + j];
            store(to, load_as<decltype(y)>(to) + y);
        };

        for (int64_t layer = 0; layer < model.n_blocks; layer++) {
            const Block& block = model.blocks[layer];
            normalise(model, block.attention_norm, x, normed, D);
            worker.project(block.qkv, normed.data(), into(qkv, QKV));
#pragma omp barrier
#pragma omp for collapse(2) schedule(static)
            for (int64_t row = 0; row < B; row++)
                for (int64_t group = 0; group < G; group++)
                    for (int64_t i = row * T; i < row * T + T; i++)  // each sees those before it in the cache
                        attend_in(model, step, layer, row, i % T, group, &qkv[i * QKV], &mixed[i * D], scores);
            worker.project(block.output, mixed.data(), add_to_stream);
#pragma omp barrier
            normalise(model, block.feedforward_norm, x, normed, D);
            worker.project(block.up, normed.data(), into(wide, F));
            if (gated) worker.project(block.gate, normed.data(), into(gate, F));
            const auto [first, last] = worker.share(F);
            for (int64_t row = 0; row < N; row++)
                for (int64_t i = row * F + first; i < row * F + last; i += WIDTH)
                    store(&wide[i], gated ? silu(load(&gate[i])) * load(&wide[i]) : gelu(load(&wide[i])));
#pragma omp barrier
            worker.project(block.down, wide.data(), add_to_stream);
#pragma omp barrier
        }
        normalise(model, model.final_norm, x, normed, D);
        worker.project(model.head, normed.data(),
                       [&](int64_t row, int64_t j, auto y) { store(&step.logits[row * V + j], y); });
    }
}

}  // namespace

// Whether steps of many tokens use tiles here: 1 or 0.
extern "C" int32_t glassgpt_has_tiles() { return tiles_are_allowed(); }

// Whether memory is read in the order that suits AMD's processors: 1 or 0.
extern "C" int32_t glassgpt_reads_as_amd() { return AMD; }

// Whether there was memory enough: 1 or 0.
extern "C" int32_t glassgpt_step(const Model& model, const Step& step, int32_t n_threads) {
    try {
        read_tokens(model, step, n_threads);
    } catch (const std::bad_alloc&) {
        return 0;
    }
    return 1;
}
