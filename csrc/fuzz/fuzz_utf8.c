/* UTF-8: any bytes, valid or not, through every variant.
 * Input: size of chunks (1), text. */
#include "utf8_every_way.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > READING_SIZE) {
        return 0;
    }
    utf8_every_way(data + 1, size - 1, 1 + (size_t)data[0]);
    return 0;
}
