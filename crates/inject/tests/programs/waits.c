// Waits in one system call, named by its argument, again and again, and says so when the call does anything but wait:
// gives EINTR, returns early, or leaves another value in a register or in errno than it should.

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TICK_MS = 20 };

static volatile sig_atomic_t signals;

static void count(int number) {
    (void)number;
    signals++;
}

static int64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void fail(const char *call, long result) {
    printf("%s gave %ld, %s\n", call, result, strerror(errno));
    fflush(stdout);
    exit(1);
}

static int epoll_on(int fd) {
    int epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    return epoll;
}

static int listener(void) {
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    bind(fd, (struct sockaddr *)&address, sizeof(sa_family_t)); // a name that the kernel chooses
    listen(fd, 1);
    return fd;
}

// Every general register but the stack pointer keeps its value over a long loop. Gives how many did not.
static long registers(void) {
    long wrong;
    __asm__ volatile(
        "push %%rbp\n"
        "mov $1, %%rax\n mov $2, %%rbx\n mov $3, %%rdx\n mov $4, %%rsi\n mov $5, %%rdi\n mov $6, %%rbp\n"
        "mov $8, %%r8\n mov $9, %%r9\n mov $10, %%r10\n mov $11, %%r11\n mov $12, %%r12\n mov $13, %%r13\n"
        "mov $14, %%r14\n mov $15, %%r15\n mov $3000000, %%rcx\n"
        "movq %%r15, %%xmm7\n"
        "1: dec %%rcx\n jnz 1b\n"
        "sub $1, %%rax\n sub $2, %%rbx\n sub $3, %%rdx\n sub $4, %%rsi\n sub $5, %%rdi\n sub $6, %%rbp\n"
        "sub $8, %%r8\n sub $9, %%r9\n sub $10, %%r10\n sub $11, %%r11\n sub $12, %%r12\n sub $13, %%r13\n"
        "movq %%xmm7, %%rcx\n sub %%rcx, %%r15\n sub $14, %%r14\n"
        "or %%rbx, %%rax\n or %%rdx, %%rax\n or %%rsi, %%rax\n or %%rdi, %%rax\n or %%rbp, %%rax\n"
        "or %%r8, %%rax\n or %%r9, %%rax\n or %%r10, %%rax\n or %%r11, %%rax\n or %%r12, %%rax\n"
        "or %%r13, %%rax\n or %%r14, %%rax\n or %%r15, %%rax\n"
        "pop %%rbp\n"
        : "=a"(wrong)
        :
        : "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm7", "memory");
    return wrong;
}

int main(int count_of_arguments, char **arguments) {
    const char *call = count_of_arguments > 1 ? arguments[1] : "";
    struct timespec tick = {.tv_nsec = TICK_MS * 1000000};
    struct epoll_event event;
    struct pollfd on_input = {.fd = 0, .events = POLLIN};
    sigset_t set;
    sigemptyset(&set);
    char byte;
    uint32_t word = 0;
    int sockets[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, sockets);
    struct timeval limit = {.tv_usec = TICK_MS * 1000};
    setsockopt(sockets[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    int epoll = epoll_on(0), accepting = listener(), semaphore = -1;
    signal(SIGRTMIN, count);
    puts("ready");
    fflush(stdout);

    for (;;) {
        int64_t begin = now_us();
        long result, expect;
        int is_limited = 0;
        errno = 0;
        if (!strcmp(call, "epoll_wait")) {
            result = epoll_wait(epoll, &event, 1, -1), expect = 1;
        } else if (!strcmp(call, "epoll_pwait")) {
            result = epoll_pwait(epoll, &event, 1, -1, &set), expect = 1;
        } else if (!strcmp(call, "epoll_wait_limited")) {
            result = epoll_wait(epoll, &event, 1, TICK_MS), expect = 0, is_limited = 1;
        } else if (!strcmp(call, "poll")) {
            result = poll(&on_input, 1, -1), expect = 1;
        } else if (!strcmp(call, "ppoll_limited")) {
            result = ppoll(&on_input, 1, &tick, &set), expect = 0, is_limited = 1;
        } else if (!strcmp(call, "select")) {
            fd_set inputs;
            FD_ZERO(&inputs);
            FD_SET(0, &inputs);
            result = select(1, &inputs, NULL, NULL, NULL), expect = 1;
        } else if (!strcmp(call, "read")) {
            result = read(0, &byte, 1), expect = 1;
        } else if (!strcmp(call, "accept")) {
            result = accept(accepting, NULL, NULL), expect = -2;
        } else if (!strcmp(call, "recv_limited")) {
            result = recv(sockets[0], &byte, 1, 0), expect = -1, is_limited = 1;
            if (errno != EAGAIN) {
                fail(call, result);
            }
        } else if (!strcmp(call, "nanosleep")) {
            result = nanosleep(&tick, NULL), expect = 0, is_limited = 1;
        } else if (!strcmp(call, "futex")) {
            result = syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL), expect = -2;
        } else if (!strcmp(call, "futex_limited")) {
            result = syscall(SYS_futex, &word, FUTEX_WAIT, 0, &tick), expect = -1, is_limited = 1;
            if (errno != ETIMEDOUT) {
                fail(call, result);
            }
        } else if (!strcmp(call, "semop")) {
            if (semaphore < 0) {
                semaphore = semget(IPC_PRIVATE, 1, 0600);
                if (fork() == 0) { // takes it away when this process has ended
                    signal(SIGTERM, SIG_IGN);
                    read(0, &byte, 1);
                    semctl(semaphore, 0, IPC_RMID);
                    _exit(0);
                }
            }
            struct sembuf take = {.sem_op = -1};
            result = semop(semaphore, &take, 1), expect = -2;
        } else if (!strcmp(call, "sigtimedwait")) {
            sigaddset(&set, SIGUSR2);
            sigprocmask(SIG_BLOCK, &set, NULL);
            result = sigtimedwait(&set, NULL, NULL), expect = -2;
        } else if (!strcmp(call, "wait")) {
            if (fork() == 0) {
                read(0, &byte, 1);
                _exit(0);
            }
            result = waitpid(-1, NULL, 0) > 0, expect = 1;
        } else if (!strcmp(call, "failing")) {
            result = read(-1, &byte, 1), expect = -1;
            if (errno != EBADF) {
                fail(call, result);
            }
        } else if (!strcmp(call, "registers")) {
            result = registers(), expect = 0;
        } else if (!strcmp(call, "signals")) {
            result = poll(&on_input, 1, -1);
            if (result == 1 && read(0, &byte, 1) == 1) {
                printf("%d\n", (int)signals);
                fflush(stdout);
            }
            continue;
        } else {
            return 2;
        }
        if (result != expect || (is_limited && now_us() - begin < TICK_MS * 1000 - 100)) {
            fail(call, result);
        }
        if (!is_limited && expect == 1) {
            puts("done");
            fflush(stdout);
            return 0;
        }
    }
}
