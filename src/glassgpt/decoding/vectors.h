// Vectors as long as the processor's registers, and the little arithmetic on them that a step and a prompt need.
//
// GCC takes vectors of any length, but keeps those that are longer than the registers in memory.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <vector>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace {

#if defined(__AVX512BW__)
constexpr int64_t WIDTH = 16;
#elif defined(__AVX2__)
constexpr int64_t WIDTH = 8;
#else
constexpr int64_t WIDTH = 4;
#endif
#if defined(__AVX512BW__) || defined(__aarch64__)
constexpr int REGISTERS = 32;
#else
constexpr int REGISTERS = 16;
#endif
#if defined(__FMA__) || defined(__aarch64__)
constexpr bool FUSED = true;  // a product is added as it is made, and needs no register of its own
#else
constexpr bool FUSED = false;
#endif
typedef float Vector __attribute__((vector_size(4 * WIDTH)));
typedef uint32_t Words __attribute__((vector_size(4 * WIDTH)));
typedef int32_t Integers __attribute__((vector_size(4 * WIDTH)));
typedef int32_t Places __attribute__((vector_size(16)));
typedef int16_t Shorts __attribute__((vector_size(4 * WIDTH)));
typedef int16_t HalfShorts __attribute__((vector_size(2 * WIDTH)));

// Memory in which no Vector lies in two lines of the processor's cache: reading such a one takes twice as long.
constexpr int64_t LINE = 64;
template <typename Number>
struct Aligned {
    typedef Number value_type;
    Aligned() = default;
    template <typename Other>
    Aligned(const Aligned<Other>&) {}
    Number* allocate(size_t n) {
        return static_cast<Number*>(::operator new(n * sizeof(Number), std::align_val_t(LINE)));
    }
    void deallocate(Number* p, size_t) { ::operator delete(p, std::align_val_t(LINE)); }
    bool operator==(const Aligned&) const { return true; }
    bool operator!=(const Aligned&) const { return false; }
};
template <typename Number>
using Numbers = std::vector<Number, Aligned<Number>>;

Vector load(const float* p) {
    Vector v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

// One number, or a Vector.
template <typename Numbers>
Numbers load_as(const float* p) {
    Numbers numbers;
    std::memcpy(&numbers, p, sizeof numbers);
    return numbers;
}

// For what is multiplied several times, as GCC would load it for each product anew. These are no instructions: they
// only hide from GCC that it knows where `v` comes from.
Vector in_register(Vector v) {
#if defined(__SSE2__)
    asm("" : "+v"(v));
#elif defined(__aarch64__)
    asm("" : "+w"(v));
#endif
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

float widened(uint16_t half) {
    const uint32_t word = uint32_t(half) << 16;
    float number;
    std::memcpy(&number, &word, 4);
    return number;
}

Shorts load_shorts(const void* p) {
    Shorts s;
    std::memcpy(&s, p, sizeof s);
    return s;
}

// total + a · b, rounded once where the processor can. Said to the compiler: left to itself, GCC 12 takes two
// instructions in one block of sums and one in another, and a row would not get the same bits in any batch.
Vector multiply_add(Vector a, Vector b, Vector total) {
#if defined(__AVX512BW__)
    return (Vector)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)total);
#elif defined(__AVX2__) && defined(__FMA__)
    return (Vector)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)total);
#elif defined(__FMA__)
    return (Vector)_mm_fmadd_ps((__m128)a, (__m128)b, (__m128)total);
#elif defined(__aarch64__)
    return (Vector)vfmaq_f32((float32x4_t)total, (float32x4_t)a, (float32x4_t)b);
#else
    return total + a * b;
#endif
}

float multiply_add(float a, float b, float total) { return std::fma(a, b, total); }

// The same with neighbouring products of whole numbers added: compilers do not find this instruction.
Integers multiply_add(Shorts a, Shorts b, Integers total) {
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
    return (Integers)_mm512_dpwssd_epi32((__m512i)total, (__m512i)a, (__m512i)b);
#elif defined(__AVX512BW__)
    return total + (Integers)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return total + (Integers)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return total + (Integers)_mm_madd_epi16((__m128i)a, (__m128i)b);
#elif defined(__aarch64__)
    const int32x4_t lower = vmlal_s16((int32x4_t)total, vget_low_s16((int16x8_t)a), vget_low_s16((int16x8_t)b));
    return (Integers)vmlal_high_s16(lower, (int16x8_t)a, (int16x8_t)b);
#else
    HalfShorts x[2], y[2];
    std::memcpy(x, &a, sizeof a), std::memcpy(y, &b, sizeof b);
    for (int i = 0; i < 2; i++)
        total += __builtin_convertvector(x[i], Integers) * __builtin_convertvector(y[i], Integers);
    return total;
#endif
}

float as_float(int32_t number) { return float(number); }
Vector as_float(Integers numbers) { return __builtin_convertvector(numbers, Vector); }

void store(float* p, Vector v) { std::memcpy(p, &v, sizeof v); }
void store(float* p, float v) { *p = v; }

// Halves of a Vector or of Integers are added until four numbers are left.
template <typename Long>
auto four_numbers(Long v) {
    if constexpr (sizeof v == 16) {
        return v;
    } else {
        typedef typename std::remove_reference<decltype(v[0])>::type Number;
        typedef Number Half __attribute__((vector_size(sizeof(Long) / 2)));
        Half halves[2];
        std::memcpy(halves, &v, sizeof v);
        return four_numbers(halves[0] + halves[1]);
    }
}

// The sum of a Vector or of Integers.
template <typename Long>
auto sum(Long v) {
    const auto four = four_numbers(v);
    return (four[0] + four[2]) + (four[1] + four[3]);
}

// The sums of four of them, each taken in the same order as alone.
template <typename Long>
auto four_sums(const Long (&v)[4]) {
    const Places low = {0, 1, 4, 5}, high = {2, 3, 6, 7}, even = {0, 2, 4, 6}, odd = {1, 3, 5, 7};
    const auto halved = [&](auto a, auto b) {
        return __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
    };
    const auto first = halved(four_numbers(v[0]), four_numbers(v[1]));
    const auto second = halved(four_numbers(v[2]), four_numbers(v[3]));
    return __builtin_shuffle(first, second, even) + __builtin_shuffle(first, second, odd);
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

void store(uint16_t* p, Vector v) {  // rounded to the nearest bfloat16, ties to even; what is no number stays none
    typedef uint16_t Halves __attribute__((vector_size(2 * WIDTH)));
    Words words;
    std::memcpy(&words, &v, sizeof words);
    words = v == v ? (words + 0x7fff + (words >> 16 & 1)) >> 16 : 0x7fc0 + Words{};
    const Halves halves = __builtin_convertvector(words, Halves);
    std::memcpy(p, &halves, sizeof halves);
}

// gelu: x / 2 · (1 + tanh u) = x · s with s = sigmoid(2u), u = √(2/π) (x + 0.044715 x³); all but 0 below −30
Vector gelu_share(Vector x) { return sigmoid(1.5957691216f * (x + 0.044715f * x * x * x)); }

Vector gelu(Vector x) {
    x = x < -30.0f ? -30.0f - Vector{} : x;
    return x * gelu_share(x);
}

// Its derivative: s + x s (1 − s) 2u'. Beyond 30 it is 0 or 1.
Vector gelu_slope(Vector x) {
    x = x < -30.0f ? -30.0f - Vector{} : x;
    x = x > 30.0f ? 30.0f - Vector{} : x;
    const Vector s = gelu_share(x);
    return s + x * s * (1 - s) * 1.5957691216f * (1 + 0.134145f * x * x);
}

Vector silu(Vector x) { return x * sigmoid(x); }

}  // namespace
