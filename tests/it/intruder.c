/* Another user who locks a file before its maker does. Preloaded into `agent-metrics task` by
 * tests; no part of the product.
 *
 * Whenever the program asks for an exclusive lock, a process of the user INTRUDER_UID first tries to
 * open that file by its name and to lock it, and keeps the lock as long as the program lives. It
 * says on standard error how far it came. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <unistd.h>

typedef int lock_function(int, int);

static void say(const char *words)
{
    if (write(STDERR_FILENO, words, strlen(words)) < 0)
        _exit(1);
}

static void intrude(const char *path, uid_t user, lock_function *lock, int done)
{
    int file;

    if (setgid(user) != 0 || setuid(user) != 0) {
        say("intruder: is not another user\n");
        _exit(1);
    }
    /* After setuid, which undoes it. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    file = open(path, O_RDONLY);
    if (file < 0 || lock(file, LOCK_EX) != 0) {
        say("intruder: refused\n");
        _exit(0);
    }
    say("intruder: has the lock\n");
    close(done);
    for (;;)
        pause();
}

int flock(int file, int operation)
{
    lock_function *real = (lock_function *)dlsym(RTLD_NEXT, "flock");
    const char *user = getenv("INTRUDER_UID");
    char link[64], path[4096], nothing;
    ssize_t length;
    int done[2];

    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    length = readlink(link, path, sizeof path - 1);
    if (user == NULL || !(operation & LOCK_EX) || length < 0 || pipe(done) != 0)
        return real(file, operation);
    path[length] = '\0';
    if (fork() == 0) {
        /* The lock of the program is not to outlive it here. */
        close(file);
        close(done[0]);
        intrude(path, (uid_t)atoi(user), real, done[1]);
    }
    /* Until the other is done, or has what it wants. */
    close(done[1]);
    while (read(done[0], &nothing, 1) > 0)
        continue;
    close(done[0]);
    return real(file, operation);
}
