// Tiles: eight registers of 1 KB in Intel's processors for servers since 2023 (Advanced Matrix Extensions, AMX).
//
// A tile has 16 rows of 64 bytes. One instruction multiplies 16 rows of weights, in one tile, with the activations of 16
// tokens, in another, and adds the 16 × 16 sums to a third. Weights lie in their tile as they lie in memory. Activations
// are turned: a token has four bytes in each row, the first four of its 64 in the first. The sums have a row for each row
// of weights, and are turned back.

#pragma once

#include "vectors.h"

#if defined(__AMX_TILE__) && defined(__AMX_INT8__) && defined(__AMX_BF16__) && defined(__AVX512BF16__) && \
    defined(__linux__)
#define GLASSGPT_TILES
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#endif

namespace {

constexpr int64_t SIDE = 16;           // rows of weights in a tile, and tokens
constexpr int64_t TILE = SIDE * LINE;  // bytes

#if defined(GLASSGPT_TILES)

// Linux has to be asked, once for a process, as it has so much more to keep of each thread.
bool tiles_are_allowed() {
    constexpr long REQUEST = 0x1023, TILE_DATA = 18;  // of arch_prctl: ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    static const bool allowed = syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
    return allowed;
}

// As long as one lives, its thread has eight whole tiles, if `wanted`.
class Tiles {
    const bool wanted;

   public:
    explicit Tiles(bool wanted) : wanted(wanted) {
        static const struct alignas(LINE) {
            uint8_t palette = 1, start_row = 0, reserved[14] = {};
            uint16_t bytes_of_a_row[16] = {LINE, LINE, LINE, LINE, LINE, LINE, LINE, LINE};
            uint8_t rows[16] = {SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE};
        } shapes;
        if (wanted) _tile_loadconfig(&shapes);
    }
    ~Tiles() {
        if (wanted) _tile_release();
    }
    Tiles(const Tiles&) = delete;
};

// Tiles 0 to 3 are for sums, the others for what is multiplied. (GCC takes numbers only that are written out.)
//
// It does not know that tiles are loaded from memory: what was written there before has to be written by now. That they
// are stored to memory, it knows. Places are in brackets, as GCC 11 forgets them.
void begin_sums() {
    std::atomic_signal_fence(std::memory_order_seq_cst);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

template <typename Sixteen>
void store_sums(Sixteen (&sums)[4][SIDE]) {
    _tile_stored(0, (sums[0]), LINE);
    _tile_stored(1, (sums[1]), LINE);
    _tile_stored(2, (sums[2]), LINE);
    _tile_stored(3, (sums[3]), LINE);
}

// Sixteen rows of sixteen numbers become columns.
static_assert(WIDTH == SIDE);
template <typename Sixteen>
void turn(Sixteen (&v)[SIDE]) {
#pragma GCC unroll 4
    for (int step = 1; step < SIDE; step *= 2) {
        Integers lower, upper;
        for (int i = 0; i < SIDE; i++) {
            lower[i] = i & step ? 16 + i - step : i;
            upper[i] = i & step ? 16 + i : i + step;
        }
#pragma GCC unroll 16
        for (int i = 0; i < SIDE; i++) {
            if (i & step) continue;
            const Sixteen a = v[i], b = v[i + step];
            v[i] = __builtin_shuffle(a, b, lower);
            v[i + step] = __builtin_shuffle(a, b, upper);
        }
    }
}

// Sixteen lines become a tile's columns of four bytes.
void store_turned(uint8_t* tile, const void* lines) {
    Integers words[SIDE];
    std::memcpy(words, lines, sizeof words);
    turn(words);
    std::memcpy(tile, words, sizeof words);
}
#else
bool tiles_are_allowed() { return false; }

struct Tiles {
    explicit Tiles(bool) {}
};
#endif

}  // namespace
