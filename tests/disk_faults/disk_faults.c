/* Makes the disk under one folder fail now and then, for tests only: preload it into the process that writes.
 *
 * $DISK_FAULTS_FOLDER   files below it are concerned, no others
 * $DISK_FAULTS_CONTROL  a file with two numbers, read at every call: errno, and in how many of 1000 calls it is returned
 * $DISK_FAULTS_SEED     of the chance
 *
 * Concerned are the calls by which SQLite and the journal write: write, pwrite, fsync, fdatasync, ftruncate, fallocate.
 * A call that fails does nothing.
 *
 *     cc -shared -fPIC -o libdiskfaults.so disk_faults.c -ldl
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static unsigned int chance_state;

static int below_folder(int fd)
{
    const char *folder = getenv("DISK_FAULTS_FOLDER");
    char link[64], path[4096];
    ssize_t size;

    if (!folder)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    size = readlink(link, path, sizeof path - 1);
    if (size < 0)
        return 0;
    path[size] = 0;
    return strncmp(path, folder, strlen(folder)) == 0;
}

static int fails(int fd)
{
    const char *control = getenv("DISK_FAULTS_CONTROL"), *seed = getenv("DISK_FAULTS_SEED");
    int number = 0, per_mille = 0;
    FILE *file;

    if (!control || !below_folder(fd))
        return 0;
    file = fopen(control, "re");
    if (!file)
        return 0;
    if (fscanf(file, "%d %d", &number, &per_mille) != 2)
        per_mille = 0;
    fclose(file);
    if (!chance_state)
        chance_state = seed ? (unsigned int)atoi(seed) + 1 : 1;
    if ((int)(rand_r(&chance_state) % 1000) >= per_mille)
        return 0;
    errno = number;
    return 1;
}

#define REAL(name, type) ((type)dlsym(RTLD_NEXT, name))

ssize_t write(int fd, const void *data, size_t size)
{
    return fails(fd) ? -1 : REAL("write", ssize_t (*)(int, const void *, size_t))(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    return fails(fd) ? -1 : REAL("pwrite", ssize_t (*)(int, const void *, size_t, off_t))(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    return fails(fd) ? -1 : REAL("pwrite64", ssize_t (*)(int, const void *, size_t, off64_t))(fd, data, size, at);
}

int fsync(int fd)
{
    return fails(fd) ? -1 : REAL("fsync", int (*)(int))(fd);
}

int fdatasync(int fd)
{
    return fails(fd) ? -1 : REAL("fdatasync", int (*)(int))(fd);
}

int ftruncate(int fd, off_t size)
{
    return fails(fd) ? -1 : REAL("ftruncate", int (*)(int, off_t))(fd, size);
}

int ftruncate64(int fd, off64_t size)
{
    return fails(fd) ? -1 : REAL("ftruncate64", int (*)(int, off64_t))(fd, size);
}

int posix_fallocate(int fd, off_t at, off_t size)
{
    return fails(fd) ? errno : REAL("posix_fallocate", int (*)(int, off_t, off_t))(fd, at, size);
}

int posix_fallocate64(int fd, off64_t at, off64_t size)
{
    return fails(fd) ? errno : REAL("posix_fallocate64", int (*)(int, off64_t, off64_t))(fd, at, size);
}
