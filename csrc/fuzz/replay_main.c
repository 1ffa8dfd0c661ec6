/* Run a fuzz target over saved inputs, without a fuzzer. */
#include "fuzz.h"

int
main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        long size = -1;
        if (file != NULL && fseek(file, 0, SEEK_END) == 0) {
            size = ftell(file);
            rewind(file);
        }
        if (size < 0) {
            fprintf(stderr, "cannot read %s\n", argv[i]);
            return 2;
        }
        const size_t n = (size_t)size;
        uint8_t *data = malloc(n ? n : 1);
        if (data == NULL || fread(data, 1, n, file) != n) {
            fprintf(stderr, "cannot read %s\n", argv[i]);
            return 2;
        }
        fclose(file);
        LLVMFuzzerTestOneInput(data, n);
        free(data);
    }
    printf("%s: %d inputs\n", argv[0], argc - 1);
    return 0;
}
