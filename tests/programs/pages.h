/* Pages whose content is known from a seed, a page number and a generation. Every mismatch ends the program. */
#ifndef PAGES_H
#define PAGES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE ((size_t)4096)
#define WORDS (PAGE / sizeof(uint64_t))

static inline uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static inline uint64_t next_random(uint64_t *state) {
    *state += 1;
    return mix(*state);
}

static inline uint64_t page_key(uint64_t seed, uint64_t page, uint64_t generation) {
    return mix(mix(seed ^ mix(page)) + generation);
}

static inline void page_fill(void *at, uint64_t seed, uint64_t page, uint64_t generation) {
    uint64_t key = page_key(seed, page, generation), *words = at;
    for (size_t i = 0; i < WORDS; i++) words[i] = key + i * 0x9e3779b97f4a7c15u;
}

static inline void die(const char *what) {
    perror(what);
    exit(2);
}

static inline void page_check(const void *at, uint64_t seed, uint64_t page, uint64_t generation) {
    uint64_t key = page_key(seed, page, generation);
    const volatile uint64_t *words = at;
    for (size_t i = 0; i < WORDS; i++) {
        uint64_t found = words[i], expected = key + i * 0x9e3779b97f4a7c15u;
        if (found != expected) {
            fprintf(stderr, "page %lu (%p) word %zu: found %016lx, expected %016lx of generation %lu; then %016lx\n",
                    page, at, i, found, expected, generation, words[i]);
            exit(1);
        }
    }
}

static inline int page_is_zero(const void *at) {
    const volatile uint64_t *words = at;
    for (size_t i = 0; i < WORDS; i++)
        if (words[i]) return 0;
    return 1;
}

static inline void page_check_zero(const void *at, uint64_t page, const char *why) {
    if (!page_is_zero(at)) {
        fprintf(stderr, "page %lu (%p) is not zero %s\n", page, at, why);
        exit(1);
    }
}

static inline unsigned char *pages_map(size_t pages) {
    void *at = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) die("mmap");
    return at;
}

static inline size_t pages_argument(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: %s MIB [SEED [ROUNDS]]\n", argv[0]);
        exit(2);
    }
    return (size_t)atol(argv[1]) * 256;
}

static inline uint64_t seed_argument(int argc, char **argv) {
    return argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
}

static inline uint64_t rounds_argument(int argc, char **argv, uint64_t usual) {
    return argc > 3 ? strtoull(argv[3], NULL, 10) : usual;
}

#endif
