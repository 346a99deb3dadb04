/* Starts programs by vfork, posix_spawn and fork + exec from within a large memory, and takes their answers. */
#include "pages.h"
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

static void expect(pid_t child, int code, const char *how) {
    int status;
    if (child <= 0 || waitpid(child, &status, 0) != child) die(how);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != code) {
        fprintf(stderr, "%s: status %x, expected exit code %d\n", how, status, code);
        exit(1);
    }
}

int main(int argc, char **argv) {
    size_t pages = pages_argument(argc, argv);
    uint64_t seed = seed_argument(argc, argv);
    unsigned char *memory = pages_map(pages);
    for (size_t i = 0; i < pages; i++) page_fill(memory + i * PAGE, seed, i, 0);
    fflush(stdout);
    for (int n = 0; n < 20; n++) {
        char script[64];
        snprintf(script, sizeof script, "exit %d", n);
        char *line[] = {"sh", "-c", script, NULL};
        pid_t child;
        if (posix_spawn(&child, "/bin/sh", NULL, NULL, line, environ)) die("posix_spawn");
        expect(child, n, "posix_spawn");
        child = vfork();
        if (child == 0) {
            execv("/bin/sh", line);
            _exit(127);
        }
        expect(child, n, "vfork");
        child = fork();
        if (child == 0) {
            /* Touch something far before the exec. */
            page_check(memory + (pages - 1) * PAGE, seed, pages - 1, 0);
            execv("/bin/sh", line);
            _exit(127);
        }
        expect(child, n, "fork and exec");
    }
    if (system("exec test -d /") != 0) die("system");
    for (size_t i = 0; i < pages; i++) page_check(memory + i * PAGE, seed, i, 0);
    printf("61 programs started and answered\n");
    return 0;
}
