/* Runs of characters of 3 or of 4 bytes, on x86.  Internal; for functions with
 * WS_ATTRIBUTE, which includes SSE4.1.  See ws_utf8_body.h. */

static WS_INLINE WS_ATTRIBUTE __m128i
run_load(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

static WS_INLINE WS_ATTRIBUTE void
run_store(void *p, __m128i v)
{
    _mm_storeu_si128((__m128i *)p, v);
}

/* Where p[0] to p[15] has continuations: a bit for each. */
static WS_INLINE WS_ATTRIBUTE uint32_t
run_more(const uint8_t *p)
{
    return (uint32_t)_mm_movemask_epi8(
        _mm_cmpgt_epi8(_mm_set1_epi8((char)0xc0), run_load(p)));
}

static WS_INLINE WS_ATTRIBUTE int
is_run3(const uint8_t *p)
{
    return (run_more(p) | (run_more(p + 8) & 0xff00) << 8) == 0xdb6db6;
}

/* 4 characters of 3 bytes, as 32-bit numbers. */
static WS_INLINE WS_ATTRIBUTE __m128i
four_of_3(const uint8_t *p)
{
    const __m128i backwards =
        _mm_setr_epi8(2, 1, 0, -1, 5, 4, 3, -1, 8, 7, 6, -1, 11, 10, 9, -1);
    const __m128i bits = _mm_and_si128(
        _mm_shuffle_epi8(run_load(p), backwards), _mm_set1_epi32(0x0f3f3f));
    /* last + 64 * middle, lead; then the one + 4096 * the other */
    return _mm_madd_epi16(_mm_maddubs_epi16(bits, _mm_set1_epi32(0x00014001)),
                          _mm_set1_epi32(0x10000001));
}

static WS_INLINE WS_ATTRIBUTE void
run3(uint16_t *dst, const uint8_t *p)
{
    run_store(dst, _mm_packus_epi32(four_of_3(p), four_of_3(p + 12)));
}

static WS_INLINE WS_ATTRIBUTE int
is_run4(const uint8_t *p)
{
    return (run_more(p) & run_more(p + 16)) == 0xeeee;
}

/* 4 characters of 4 bytes. */
static WS_INLINE WS_ATTRIBUTE __m128i
four_of_4(const uint8_t *p)
{
    const __m128i bits =
        _mm_and_si128(run_load(p), _mm_set1_epi32(0x3f3f3f07));
    /* 64 * first + second, 64 * third + fourth; then 4096 * the one + ... */
    return _mm_madd_epi16(_mm_maddubs_epi16(bits, _mm_set1_epi32(0x01400140)),
                          _mm_set1_epi32(0x00011000));
}

static WS_INLINE WS_ATTRIBUTE void
run4(uint32_t *dst, const uint8_t *p)
{
    run_store(dst, four_of_4(p));
    run_store(dst + 4, four_of_4(p + 16));
}
