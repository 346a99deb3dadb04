/* Fills memory, reads it back in order, at random and backwards, overwrites part of it, and reads it again.
 * Every eighth page is left untouched and must read as zeros; a third of the memory comes from the heap. */
#include "pages.h"

int main(int argc, char **argv) {
    size_t pages = pages_argument(argc, argv), from_heap = pages / 3;
    uint64_t seed = seed_argument(argc, argv), state = seed, sum = 0;
    unsigned char *mapped = pages_map(pages - from_heap), **at = malloc(pages * sizeof *at);
    uint8_t *generation = calloc(pages, 1);
    if (!at || !generation) die("malloc");
    /* Small blocks grow the heap by brk; large ones would be mapped. */
    for (size_t i = 0; i < from_heap; i++) {
        unsigned char *block = malloc(PAGE);
        if (!block) die("malloc");
        at[i] = block;
    }
    for (size_t i = from_heap; i < pages; i++) at[i] = mapped + (i - from_heap) * PAGE;
    for (size_t i = 0; i < pages; i++)
        if (i % 8 || i < from_heap) page_fill(at[i], seed, i, generation[i] = 1);
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < pages; i++)
            generation[i] ? page_check(at[i], seed, i, generation[i]) : page_check_zero(at[i], i, "though untouched");
        for (size_t n = 0; n < pages / 2; n++) {
            size_t i = next_random(&state) % pages;
            generation[i] ? page_check(at[i], seed, i, generation[i]) : page_check_zero(at[i], i, "though untouched");
            if (n % 2) page_fill(at[i], seed, i, ++generation[i]);
        }
        for (size_t i = pages; i-- > 0;)
            generation[i] ? page_check(at[i], seed, i, generation[i]) : page_check_zero(at[i], i, "though untouched");
    }
    /* Wholly zeroed pages must stay zero and not come back with what was sent before. */
    for (size_t i = 0; i < pages; i += 5) memset(at[i], 0, PAGE), generation[i] = 0;
    for (size_t i = 0; i < pages; i++) {
        generation[i] ? page_check(at[i], seed, i, generation[i]) : page_check_zero(at[i], i, "after it was zeroed");
        sum += generation[i];
    }
    printf("%zu pages, %lu generations: as written\n", pages, sum);
    return 0;
}
