/* Many threads on one memory: each writes its own pages, all read the common ones, pairs of threads share pages by
 * words, and short-lived threads come and go meanwhile. */
#include "pages.h"
#include <pthread.h>
#include <stdatomic.h>

#define THREADS 12

static size_t pages, common_pages;
static uint64_t seed, rounds;
static unsigned char *common, *own[THREADS];
static _Atomic uint64_t *counters;
static size_t counter_count;

static void *work(void *argument) {
    size_t me = (size_t)argument, mine = pages / 2 / THREADS;
    uint64_t state = mix(seed + me);
    unsigned char *at = own[me];
    for (size_t i = 0; i < mine; i++) page_fill(at + i * PAGE, seed + me, i, 0);
    for (uint64_t round = 0; round < rounds; round++) {
        for (size_t i = 0; i < mine; i++) {
            page_check(at + i * PAGE, seed + me, i, round);
            page_fill(at + i * PAGE, seed + me, i, round + 1);
            size_t other = next_random(&state) % common_pages;
            page_check(common + other * PAGE, seed, other, 7);
            atomic_fetch_add(&counters[next_random(&state) % counter_count], 1);
        }
    }
    for (size_t i = 0; i < mine; i++) page_check(at + i * PAGE, seed + me, i, rounds);
    return NULL;
}

static void *touch_and_go(void *argument) {
    uint64_t state = (uint64_t)argument;
    for (int n = 0; n < 16; n++) {
        size_t page = next_random(&state) % common_pages;
        page_check(common + page * PAGE, seed, page, 7);
    }
    return NULL;
}

int main(int argc, char **argv) {
    pages = pages_argument(argc, argv);
    seed = seed_argument(argc, argv);
    rounds = rounds_argument(argc, argv, 3);
    common_pages = pages / 4;
    common = pages_map(common_pages);
    size_t counter_pages = pages / 4;
    counters = (void *)pages_map(counter_pages);
    counter_count = counter_pages * WORDS;
    for (size_t i = 0; i < common_pages; i++) page_fill(common + i * PAGE, seed, i, 7);
    pthread_t thread[THREADS];
    for (size_t i = 0; i < THREADS; i++) {
        own[i] = pages_map(pages / 2 / THREADS);
        if (pthread_create(&thread[i], NULL, work, (void *)i)) die("pthread_create");
    }
    for (uint64_t n = 0; n < 200; n++) {
        pthread_t brief;
        if (pthread_create(&brief, NULL, touch_and_go, (void *)mix(n))) die("pthread_create");
        pthread_join(brief, NULL);
    }
    for (size_t i = 0; i < THREADS; i++) pthread_join(thread[i], NULL);
    uint64_t sum = 0, expected = (uint64_t)THREADS * rounds * (pages / 2 / THREADS);
    for (size_t i = 0; i < counter_count; i++) sum += counters[i];
    if (sum != expected) {
        fprintf(stderr, "%lu increments were counted, %lu were made\n", sum, expected);
        return 1;
    }
    printf("%d threads, %lu increments: none lost\n", THREADS, sum);
    return 0;
}
