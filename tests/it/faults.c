/* Makes accept and thread creation fail, as an exhausted system does, in a program that knows
 * nothing of it. Preloaded into the server by tests; no part of the product.
 *
 * The directory FAULTS_DIRECTORY holds a symbolic link per fault, `accept` or `thread`,
 * whose target is the number of the error to report. A link is read without taking a descriptor,
 * and comes and goes in one step, so a test switches faults while the server runs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* The error to report for `name`, or 0 where the call may go through. */
static int fault(const char *name)
{
    const char *directory = getenv("FAULTS_DIRECTORY");
    char path[4096], number[16];
    int saved = errno;
    ssize_t length;

    if (directory == NULL)
        return 0;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    length = readlink(path, number, sizeof number - 1);
    errno = saved;
    if (length <= 0)
        return 0;
    number[length] = '\0';
    return atoi(number);
}

int accept4(int listener, struct sockaddr *address, socklen_t *length, int flags)
{
    static int (*real)(int, struct sockaddr *, socklen_t *, int);
    int error = fault("accept");

    if (error != 0) {
        errno = error;
        return -1;
    }
    if (real == NULL)
        real = (int (*)(int, struct sockaddr *, socklen_t *, int))dlsym(RTLD_NEXT, "accept4");
    return real(listener, address, length, flags);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                   void *(*start)(void *), void *argument)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    int error = fault("thread");

    if (error != 0)
        return error;
    if (real == NULL)
        real = (int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))
            dlsym(RTLD_NEXT, "pthread_create");
    return real(thread, attributes, start, argument);
}
