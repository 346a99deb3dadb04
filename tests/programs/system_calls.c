/* The kernel itself reads and writes the memory, a MiB with each call: its faults are not the program's own. */
#include "pages.h"

#define CALL ((size_t)256) /* pages */

int main(int argc, char **argv) {
    size_t pages = pages_argument(argc, argv) / CALL * CALL;
    uint64_t seed = seed_argument(argc, argv), rounds = rounds_argument(argc, argv, 3);
    int file = memfd_create("pages", 0);
    if (file < 0 || ftruncate(file, CALL * PAGE)) die("memfd_create");
    unsigned char *window = mmap(NULL, CALL * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (window == MAP_FAILED) die("mmap of the file");
    unsigned char *memory = pages_map(pages);
    for (uint64_t round = 0; round < rounds; round++) {
        for (size_t at = 0; at < pages; at += CALL) {
            for (size_t i = 0; i < CALL; i++) page_fill(window + i * PAGE, seed, at + i, round);
            if (pread(file, memory + at * PAGE, CALL * PAGE, 0) != (ssize_t)(CALL * PAGE)) die("pread");
        }
        for (size_t at = 0; at < pages; at += CALL) {
            memset(window, 0, CALL * PAGE);
            if (pwrite(file, memory + at * PAGE, CALL * PAGE, 0) != (ssize_t)(CALL * PAGE)) die("pwrite");
            for (size_t i = 0; i < CALL; i++) page_check(window + i * PAGE, seed, at + i, round);
        }
    }
    printf("%lu rounds of reading and writing by the kernel: as written\n", rounds);
    return 0;
}
