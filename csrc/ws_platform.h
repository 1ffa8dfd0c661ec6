/* Compiler, architecture and byte order: every #if about them is here. */
#ifndef WS_PLATFORM_H
#define WS_PLATFORM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* WS_X86: SSE2 may be used without asking, AVX2 after asking ws_cpu.h.
 * WS_ARM64: NEON may be used without asking. */
#if defined(__x86_64__) || (defined(_M_X64) && !defined(_M_ARM64EC))          \
    || (defined(__i386__) && defined(__SSE2__))
#define WS_X86 1
#else
#define WS_X86 0
#endif

#if (defined(__aarch64__) && !defined(__AARCH64EB__)) || defined(_M_ARM64)
#define WS_ARM64 1
#else
#define WS_ARM64 0
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define WS_BIG_ENDIAN 1
#else
#define WS_BIG_ENDIAN 0
#endif

#if defined(__GNUC__) || defined(__clang__)
#define WS_INLINE inline __attribute__((always_inline))
#define WS_NOINLINE __attribute__((noinline))
#define WS_TARGET(isa) __attribute__((target(isa)))
#define WS_AS_WRITTEN() __asm__ volatile("" ::: "memory") /* no idioms here */
#define WS_LIKELY(x) __builtin_expect(!!(x), 1)
#define WS_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define WS_RESTRICT restrict
#define WS_PREFETCH(p) __builtin_prefetch(p) /* never faults */
#elif defined(_MSC_VER)
#include <intrin.h>
#define WS_INLINE __forceinline
#define WS_NOINLINE __declspec(noinline)
#define WS_TARGET(isa)
#define WS_AS_WRITTEN() ((void)0)
#define WS_LIKELY(x) (x)
#define WS_UNLIKELY(x) (x)
#define WS_RESTRICT __restrict
#define WS_PREFETCH(p) ((void)(p))
#else
#define WS_INLINE inline
#define WS_NOINLINE
#define WS_TARGET(isa)
#define WS_AS_WRITTEN() ((void)0)
#define WS_LIKELY(x) (x)
#define WS_UNLIKELY(x) (x)
#define WS_RESTRICT restrict
#define WS_PREFETCH(p) ((void)(p))
#endif

/* GCC makes vectors of equal bytes anew each time round a loop, unless it does
 * not know what is in them. */
#if defined(__GNUC__) && !defined(__clang__) && WS_X86
#define WS_OPAQUE(vector) __asm__("" : "+x"(vector))
#elif defined(__GNUC__) && !defined(__clang__) && WS_ARM64
#define WS_OPAQUE(vector) __asm__("" : "+w"(vector))
#else
#define WS_OPAQUE(vector) ((void)0)
#endif

/* Words are read and written through memcpy: no assumption about alignment or
 * aliasing, and it compiles to one instruction. */
static WS_INLINE uint32_t
ws_load32(const uint8_t *p)
{
    uint32_t w;
    memcpy(&w, p, sizeof w);
    return w;
}

static WS_INLINE uint64_t
ws_load64(const uint8_t *p)
{
    uint64_t w;
    memcpy(&w, p, sizeof w);
    return w;
}

static WS_INLINE void
ws_store32(uint8_t *p, uint32_t w)
{
    memcpy(p, &w, sizeof w);
}

static WS_INLINE void
ws_store64(uint8_t *p, uint64_t w)
{
    memcpy(p, &w, sizeof w);
}

/* One bit for each byte: is it 0x80 or above? */
#define WS_HIGH_BITS UINT64_C(0x8080808080808080)

/* The index of the lowest bit that is set; w is not 0. */
static WS_INLINE size_t
ws_first_one(uint64_t w)
{
#if defined(__GNUC__)
    return (size_t)__builtin_ctzll(w);
#elif defined(_MSC_VER) && (defined(_M_X64) || defined(_M_ARM64))
    unsigned long i;
    _BitScanForward64(&i, w);
    return i;
#else
    size_t i = 0;
    while (!(w >> i & 1)) {
        i++;
    }
    return i;
#endif
}

/* The index in memory of the first byte of w that is 0x80 or above; 8 if none
 * is. */
static WS_INLINE size_t
ws_first_high(uint64_t w)
{
    w &= WS_HIGH_BITS;
    if (w == 0) {
        return 8;
    }
#if WS_BIG_ENDIAN
    return (size_t)__builtin_clzll(w) / 8;
#else
    return ws_first_one(w) / 8;
#endif
}

#endif
