// GELU in its tanh form and its derivative, of many numbers at once, in float32 or bfloat16.

#include <omp.h>

#include "vectors.h"

namespace {

// y[i] = f(x[i], …), a register full of each at a time; the last ones share theirs with zeros.
template <typename Number, typename Function, typename... Inputs>
void map(Function f, Number* y, int64_t n, int32_t n_threads, const Inputs*... x) {
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (int64_t i = 0; i < n / WIDTH; i++) store(y + i * WIDTH, f(load(x + i * WIDTH)...));
    const int64_t n_rest = n % WIDTH, start = n - n_rest;
    const auto rest_of = [&](const Number* from) {
        Number rest[WIDTH] = {};
        std::copy(from + start, from + n, rest);
        return load(rest);
    };
    Number rest[WIDTH];
    store(rest, f(rest_of(x)...));
    std::copy(rest, rest + n_rest, y + start);
}

Vector along_slope(Vector x, Vector grad) { return gelu_slope(x) * grad; }

}  // namespace

extern "C" void glassgpt_gelu(const float* x, float* y, int64_t n, int32_t n_threads) {
    map(gelu, y, n, n_threads, x);
}

extern "C" void glassgpt_gelu_bfloat16(const uint16_t* x, uint16_t* y, int64_t n, int32_t n_threads) {
    map(gelu, y, n, n_threads, x);
}

// What comes back through GELU: the gradient `grad` of what it gave for `x`, into that of `x`.
extern "C" void glassgpt_gelu_backward(const float* x, const float* grad, float* to, int64_t n, int32_t n_threads) {
    map(along_slope, to, n, n_threads, x, grad);
}

extern "C" void glassgpt_gelu_backward_bfloat16(const uint16_t* x, const uint16_t* grad, uint16_t* to, int64_t n,
                                                int32_t n_threads) {
    map(along_slope, to, n, n_threads, x, grad);
}
