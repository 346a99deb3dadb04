/* A tree of processes: each child must see memory as it was at its fork while its parent overwrites it, and what a
 * child writes must stay its own. Children fork grandchildren; the last child outlives its parent's changes by far. */
#include "pages.h"
#include <errno.h>
#include <sys/wait.h>

#define CHILDREN 3

static size_t pages;
static uint64_t seed;
static unsigned char *memory;

static void check_all(uint64_t generation) {
    for (size_t i = 0; i < pages; i++) page_check(memory + i * PAGE, seed, i, generation);
}

static void fill_all(uint64_t generation) {
    for (size_t i = 0; i < pages; i++) page_fill(memory + i * PAGE, seed, i, generation);
}

static void join(pid_t child, int expected) {
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) die("waitpid");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != expected) {
        fprintf(stderr, "child %d ended with status %x, expected exit code %d\n", child, status, expected);
        exit(1);
    }
}

static pid_t fork_or_die(void) {
    pid_t child = fork();
    if (child < 0) die("fork");
    return child;
}

/* Sees generation 1 + n, overwrites part of it for itself, and lets a grandchild see that. */
static void child(uint64_t n, int go) {
    char byte;
    /* Even children wait until the parent has overwritten everything; odd ones race with it. */
    if (n % 2 == 0 && read(go, &byte, 1) != 0) die("read");
    check_all(1 + n);
    for (size_t i = n; i < pages; i += 3) page_fill(memory + i * PAGE, seed, i, 100 + n);
    pid_t grandchild = fork_or_die();
    for (size_t i = 0; i < pages; i++) {
        int changed = i >= n && (i - n) % 3 == 0;
        page_check(memory + i * PAGE, seed, i, changed ? 100 + n : 1 + n);
        if (grandchild == 0 && i % 7 == 0) page_fill(memory + i * PAGE, seed, i, 200);
    }
    if (grandchild == 0) _exit(30);
    join(grandchild, 30);
    _exit(10 + (int)n);
}

int main(int argc, char **argv) {
    pages = pages_argument(argc, argv);
    seed = seed_argument(argc, argv);
    memory = pages_map(pages);
    pid_t children[CHILDREN];
    int go[2];
    if (pipe(go)) die("pipe");
    fill_all(1);
    for (uint64_t n = 0; n < CHILDREN; n++) {
        children[n] = fork_or_die();
        if (children[n] == 0) {
            close(go[1]);
            child(n, go[0]);
        }
        fill_all(2 + n);
    }
    close(go[1]);
    for (int n = 0; n < CHILDREN; n++) join(children[n], 10 + n);
    check_all(1 + CHILDREN);
    printf("%zu pages, %d children and their children: each saw its own\n", pages, CHILDREN);
    return 0;
}
