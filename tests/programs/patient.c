/* Checks its memory over and over until a signal ends it: SIGTERM by a handler with exit code 42, others as they do.
 * Prints "ready" once the memory is filled and a line for every SIGUSR1; it rewrites a page of every sixteen. */
#include "pages.h"
#include <signal.h>

static volatile sig_atomic_t asked, ended;

static void on_signal(int signal) {
    if (signal == SIGUSR1)
        asked = 1;
    else
        ended = 1;
}

int main(int argc, char **argv) {
    size_t pages = pages_argument(argc, argv);
    uint64_t seed = seed_argument(argc, argv), round = 0;
    unsigned char *memory = pages_map(pages);
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    if (sigaction(SIGTERM, &action, NULL) || sigaction(SIGUSR1, &action, NULL)) die("sigaction");
    for (size_t i = 0; i < pages; i++) page_fill(memory + i * PAGE, seed, i, 0);
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("ready\n");
    while (!ended) {
        for (size_t i = 0; i < pages && !ended; i++) {
            page_check(memory + i * PAGE, seed, i, i % 16 ? 0 : round);
            if (i % 16 == 0) page_fill(memory + i * PAGE, seed, i, round + 1);
        }
        if (ended) break;
        round++;
        if (asked) {
            asked = 0;
            printf("checked\n");
        }
    }
    printf("ended\n");
    return 42;
}
