/* Several threads map, fill, check, move, shrink, grow, discard and unmap memory all the time. */
#include "pages.h"
#include <pthread.h>

#define THREADS 4

static size_t pages;
static uint64_t seed, rounds;

static void discard(unsigned char *at, size_t from, size_t count, uint64_t key, uint64_t *state) {
    if (next_random(state) % 2) {
        if (madvise(at + from * PAGE, count * PAGE, MADV_DONTNEED)) die("MADV_DONTNEED");
        for (size_t i = from; i < from + count; i++) page_check_zero(at + i * PAGE, i, "after MADV_DONTNEED");
    } else {
        if (madvise(at + from * PAGE, count * PAGE, MADV_FREE)) die("MADV_FREE");
        for (size_t i = from; i < from + count; i++)
            if (!page_is_zero(at + i * PAGE)) page_check(at + i * PAGE, key, i, 0);
    }
    for (size_t i = from; i < from + count; i++) page_fill(at + i * PAGE, key, i, 0);
}

static void *work(void *argument) {
    uint64_t state = mix(seed + (size_t)argument);
    /* One mapping stays, so that there is always something to evict. */
    size_t kept_pages = pages / THREADS / 2;
    unsigned char *kept = pages_map(kept_pages);
    for (size_t i = 0; i < kept_pages; i++) page_fill(kept + i * PAGE, seed, i, 0);
    for (uint64_t round = 0; round < rounds; round++) {
        uint64_t key = next_random(&state);
        size_t count = 16 + next_random(&state) % (pages / THREADS / 4);
        unsigned char *at = pages_map(count);
        for (size_t i = 0; i < count; i++) page_fill(at + i * PAGE, key, i, 0);
        size_t from = next_random(&state) % count, some = 1 + next_random(&state) % (count - from);
        discard(at, from, some, key, &state);
        for (size_t i = 0; i < count; i++) page_check(at + i * PAGE, key, i, 0);
        /* Grow, moving if need be: the content moves too, the new part is zero. */
        size_t grown = count + 1 + next_random(&state) % count;
        at = mremap(at, count * PAGE, grown * PAGE, MREMAP_MAYMOVE);
        if (at == MAP_FAILED) die("mremap");
        for (size_t i = 0; i < grown; i++)
            i < count ? page_check(at + i * PAGE, key, i, 0) : page_check_zero(at + i * PAGE, i, "after mremap grew it");
        /* Move for certain, onto a mapping that is in the way and has content. */
        unsigned char *in_the_way = pages_map(grown);
        for (size_t i = 0; i < grown; i += 3) page_fill(in_the_way + i * PAGE, key, i, 9);
        at = mremap(at, grown * PAGE, grown * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, in_the_way);
        if (at != in_the_way) die("mremap to a fixed place");
        for (size_t i = 0; i < count; i++) page_check(at + i * PAGE, key, i, 0);
        for (size_t i = count; i < grown; i++) page_check_zero(at + i * PAGE, i, "after mremap moved it");
        /* A hole in the middle, filled with a new mapping at the same place. */
        size_t hole = count / 3, hole_end = hole + count / 4 + 1;
        if (munmap(at + hole * PAGE, (hole_end - hole) * PAGE)) die("munmap of a part");
        void *again = mmap(at + hole * PAGE, (hole_end - hole) * PAGE, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        /* Another thread may have taken the hole; then it is not ours to look at. */
        int ours = again != MAP_FAILED;
        for (size_t i = 0; i < count; i++) {
            if (i < hole || i >= hole_end)
                page_check(at + i * PAGE, key, i, 0);
            else if (ours)
                page_check_zero(at + i * PAGE, i, "in a new mapping");
        }
        if (munmap(at, hole * PAGE)) die("munmap of the front");
        if (ours && munmap(again, (hole_end - hole) * PAGE)) die("munmap of the middle");
        if (munmap(at + hole_end * PAGE, (grown - hole_end) * PAGE)) die("munmap of the rest");
        for (int n = 0; n < 64; n++) {
            size_t i = next_random(&state) % kept_pages;
            page_check(kept + i * PAGE, seed, i, 0);
        }
    }
    for (size_t i = 0; i < kept_pages; i++) page_check(kept + i * PAGE, seed, i, 0);
    return NULL;
}

int main(int argc, char **argv) {
    pages = pages_argument(argc, argv);
    seed = seed_argument(argc, argv);
    rounds = rounds_argument(argc, argv, 60);
    pthread_t thread[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        if (pthread_create(&thread[i], NULL, work, (void *)i)) die("pthread_create");
    for (size_t i = 0; i < THREADS; i++) pthread_join(thread[i], NULL);
    printf("%d threads, %lu rounds of mapping and unmapping: as written\n", THREADS, rounds);
    return 0;
}
