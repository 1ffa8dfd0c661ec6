/* Which mistakes a pair of neighbouring bytes can be.  Internal.
 *
 * Three tables, indexed by the upper half of the first byte, its lower half,
 * and the upper half of the second byte: what all three rows have in common is
 * wrong with the pair (the method of Keiser and Lemire, "Validating UTF-8 in
 * less than one instruction per byte", 2020).  One bit is not a mistake: THIRD
 * says that the second byte is the third or fourth of a character, which must
 * be where a longer lead asks for it, and nowhere else.
 */
#ifndef WS_UTF8_PAIRS_H
#define WS_UTF8_PAIRS_H

enum {
    CUT = 1,        /* lead, then no continuation */
    STRAY = 2,      /* ASCII, then continuation */
    LONG_2 = 4,     /* C0 or C1, then continuation */
    LONG_3 = 8,     /* E0, then below A0 */
    SURROGATE = 16, /* ED, then A0 or above */
    LONG_4 = 32,    /* F0, then below 90; also F5 to FF, then below 90 */
    TOO_LARGE = 64, /* F4, then 90 or above; F5 to FF, then 90 or above */
    THIRD = 128,    /* continuation, then continuation */
    F5 = TOO_LARGE | LONG_4,
    ANY = CUT | STRAY | THIRD, /* what does not depend on the lower half */
    MORE = STRAY | LONG_2 | THIRD
};

/* Lists of 16 bytes, 0 to F. */
#define FIRST_UPPER                                                           \
    STRAY, STRAY, STRAY, STRAY, STRAY, STRAY, STRAY, STRAY, THIRD, THIRD,     \
        THIRD, THIRD, CUT | LONG_2, CUT, CUT | LONG_3 | SURROGATE,            \
        CUT | LONG_4 | TOO_LARGE
#define FIRST_LOWER                                                           \
    ANY | LONG_2 | LONG_3 | LONG_4, ANY | LONG_2, ANY, ANY, ANY | TOO_LARGE,  \
        ANY | F5, ANY | F5, ANY | F5, ANY | F5, ANY | F5, ANY | F5, ANY | F5, \
        ANY | F5, ANY | F5 | SURROGATE, ANY | F5, ANY | F5
#define SECOND_UPPER                                                          \
    CUT, CUT, CUT, CUT, CUT, CUT, CUT, CUT, MORE | LONG_3 | LONG_4,           \
        MORE | LONG_3 | TOO_LARGE, MORE | SURROGATE | TOO_LARGE,              \
        MORE | SURROGATE | TOO_LARGE, CUT, CUT, CUT, CUT

#endif
