// Memory that is asked for early, into the second level of the cache.

#pragma once

#include "vectors.h"

namespace {

// Of rows of weights that lie FAR apart, a line of each for each one read, so many bytes ahead.
constexpr int64_t AHEAD = 1024;
constexpr int64_t AHEAD_PACKED = 2048;

// Of rows that touch, the N behind them. On Intel's processors each block of activations that these are multiplied with asks
// for some: number `first` and each `step`th after it. AMD's take less time when each block asks for all.
#if defined(__SSE4A__)  // only AMD's have it
constexpr bool SHARED_OUT = false;
#else
constexpr bool SHARED_OUT = true;
#endif
template <typename Weight>
struct Behind {
    const Weight* rows;
    int64_t first, step;
};

template <bool FAR, int N, typename Weight>
void prefetch(const Weight* w, int64_t apart, const Behind<Weight>& behind, int64_t i) {
    if (4 * WIDTH < LINE && i % int64_t(LINE / sizeof(Weight))) return;
    if constexpr (FAR) {
        for (int j = 0; j < N; j++) __builtin_prefetch(w + j * apart + i + AHEAD / int64_t(sizeof(Weight)), 0, 2);
    } else if constexpr (!SHARED_OUT) {
        for (int j = 0; j < N; j++) __builtin_prefetch(behind.rows + j * apart + i, 0, 2);
    } else {
        for (int64_t j = behind.first; j < N; j += behind.step) __builtin_prefetch(behind.rows + j * apart + i, 0, 2);
    }
}

}  // namespace
