/* A simulated environment for a program. This library is preloaded: it changes the wall clock and the
 * kernel's event queue as the test requests, through a file that both processes have mapped. It changes
 * nothing outside the program. Needs Linux and glibc. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum fault { NONE, WAIT_FAILS, READ_FAILS };

static volatile struct env {
    int64_t wall;    /* how far the wall clock is ahead, in seconds */
    int64_t queue;   /* the length of the event queue; 0 for the length of the kernel */
    int64_t fault;   /* the fault for the next thread that receives an event */
} defaults, *env = &defaults;

static int (*real_gettime)(clockid_t, struct timespec *);
static ssize_t (*real_read)(int, void *, size_t);
static int (*real_init)(int);
static int (*real_wait)(int, struct epoll_event *, int, int);
static int (*real_close)(int);

/* The unread events of one queue, by descriptor. Each queue is read by one thread. */
static struct queue {
    int is_open, is_broken;
    size_t at, end;
    char bytes[4096];
} queues[1024];

__attribute__((constructor)) static void begin(void) {
    real_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    real_read = dlsym(RTLD_NEXT, "read");
    real_init = dlsym(RTLD_NEXT, "inotify_init1");
    real_wait = dlsym(RTLD_NEXT, "epoll_wait");
    real_close = dlsym(RTLD_NEXT, "close");
    const char *path = getenv("ORPHAND_TEST_ENV");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *map = mmap(NULL, sizeof *env, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED)
        env = map;
    real_close(fd);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = real_gettime(clock, time);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        time->tv_sec += env->wall;
    return result;
}

int inotify_init1(int flags) {
    int fd = real_init(flags);
    if (fd >= 0 && fd < 1024)
        queues[fd] = (struct queue){.is_open = 1};
    return fd;
}

int close(int fd) {
    if (fd >= 0 && fd < 1024)
        queues[fd].is_open = 0;
    return real_close(fd);
}

static int take_fault(enum fault fault) {
    int64_t expected = fault;
    return __atomic_compare_exchange_n(&env->fault, &expected, NONE, 0, __ATOMIC_SEQ_CST,
                                       __ATOMIC_SEQ_CST);
}

int epoll_wait(int fd, struct epoll_event *events, int most, int timeout) {
    int result = real_wait(fd, events, most, timeout);
    if (result > 0 && take_fault(WAIT_FAILS)) {
        errno = EBADF;
        return -1;
    }
    return result;
}

/* Reads the whole queue of the kernel, and keeps the events that a shorter queue would hold. */
static ssize_t fill(int fd, struct queue *queue) {
    static __thread char all[65536];
    int64_t events = 0;
    ssize_t length;
    queue->at = queue->end = 0;
    while ((length = real_read(fd, all, sizeof all)) > 0) {
        for (char *at = all; at < all + length;) {
            struct inotify_event *event = (void *)at;
            size_t size = sizeof *event + event->len;
            if (events++ < env->queue) {
                memcpy(queue->bytes + queue->end, event, size);
                queue->end += size;
            }
            at += size;
        }
    }
    if (events > env->queue) {
        struct inotify_event lost = {.wd = -1, .mask = IN_Q_OVERFLOW};
        memcpy(queue->bytes + queue->end, &lost, sizeof lost);
        queue->end += sizeof lost;
    }
    return queue->end > 0 ? 0 : length;
}

ssize_t read(int fd, void *buffer, size_t size) {
    struct queue *queue = fd >= 0 && fd < 1024 ? &queues[fd] : NULL;
    if (!queue || !queue->is_open)
        return real_read(fd, buffer, size);
    if (take_fault(READ_FAILS))
        queue->is_broken = 1;
    if (queue->is_broken) {
        errno = EIO;
        return -1;
    }
    if (env->queue == 0)
        return real_read(fd, buffer, size);
    if (queue->at == queue->end && fill(fd, queue) < 0)
        return -1;
    size_t given = 0;
    while (queue->at < queue->end) {
        struct inotify_event *event = (void *)(queue->bytes + queue->at);
        size_t length = sizeof *event + event->len;
        if (given + length > size)
            break;
        memcpy((char *)buffer + given, event, length);
        given += length;
        queue->at += length;
    }
    return given;
}
