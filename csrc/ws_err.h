/* What can be wrong with a frame or a message.
 *
 * One list for both languages: websock/exceptions.py has the same numbers as
 * `Failure` and the text of each.  Kernels return the negative of a code.
 */
#ifndef WS_ERR_H
#define WS_ERR_H

enum ws_err {
    WS_OK = 0,
    WS_ERR_RSV = 1,
    WS_ERR_OPCODE = 2,
    WS_ERR_CONTROL_FRAGMENTED = 3,
    WS_ERR_CONTROL_TOO_LONG = 4,
    WS_ERR_NOT_MASKED = 5,
    WS_ERR_MASKED = 6,
    WS_ERR_LENGTH = 7,
    WS_ERR_EXPECTED_CONTINUATION = 8,
    WS_ERR_UNEXPECTED_CONTINUATION = 9,
    WS_ERR_TOO_BIG = 10,
    WS_ERR_TOO_MANY_FRAGMENTS = 11,
    WS_ERR_UTF8 = 12,
    WS_ERR_UTF8_TRUNCATED = 13,
    WS_ERR_CLOSE_TOO_SHORT = 14,
    WS_ERR_CLOSE_CODE = 15,
    WS_ERR_CLOSE_REASON = 16,
    WS_ERR_DEFLATE = 17,
    WS_ERR_CONTROL_RATE = 18
};

#endif
