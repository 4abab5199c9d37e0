// In what order memory is read, and how early it is asked for. What suits AMD's processors (measured on a Zen 4) is not what
// suits Intel's (a Xeon of the Emerald Rapids kind).

#pragma once

#include "vectors.h"

namespace {

#if defined(__SSE4A__)  // which Intel's never had; another x86 processor without it is taken for one of theirs
constexpr bool AMD = true;
#else
constexpr bool AMD = false;
#endif
#if defined(__x86_64__)
constexpr bool INTEL = !AMD;
#else
constexpr bool INTEL = false;
#endif

// Runs of a matrix's rows that a core reads side by side where it is memory that takes the time.
constexpr int RUNS = INTEL && REGISTERS == 32 ? 6 : 4;

// Of rows that lie FAR apart, as those of runs do, a line of each is asked for with each one read: AHEAD bytes behind it,
// or AHEAD_PACKED where they are packed (packed.h).
constexpr int64_t AHEAD = INTEL ? 2048 : 1024, AHEAD_PACKED = 2048;
// Into the first level of the cache, or the second.
void prefetch_far(const void* p) { __builtin_prefetch(p, 0, INTEL ? 3 : 2); }

// Of rows that touch, the N behind them, into the second level. Each block of activations that these are multiplied with asks
// for some: number `first` and each `step`th after it. On AMD's it takes less time when each block asks for all.
constexpr bool SHARED_OUT = !AMD;
template <typename Weight>
struct Behind {
    const Weight* rows;
    int64_t first, step;
};

template <bool FAR, int N, typename Weight>
void prefetch(const Weight* w, int64_t apart, const Behind<Weight>& behind, int64_t i) {
    if (4 * WIDTH < LINE && i % int64_t(LINE / sizeof(Weight))) return;
    if constexpr (FAR) {
        for (int j = 0; j < N; j++) prefetch_far(w + j * apart + i + AHEAD / int64_t(sizeof(Weight)));
    } else if constexpr (!SHARED_OUT) {
        for (int j = 0; j < N; j++) __builtin_prefetch(behind.rows + j * apart + i, 0, 2);
    } else {
        for (int64_t j = behind.first; j < N; j += behind.step) __builtin_prefetch(behind.rows + j * apart + i, 0, 2);
    }
}

}  // namespace
