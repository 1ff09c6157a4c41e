/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a fuzz target over every file of the directories named on the command line, so that corpora
 * are ordinary tests where libFuzzer is not linked in.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/attr.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(int dir_fd, const char *name)
{
    _close_ int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return 0;

    /* An exact allocation lets the address sanitizer see a read behind the end. */
    size_t size = (size_t)st.st_size;
    _free_ char *bytes = malloc(size ? size : 1);
    if (!bytes)
        return -1;
    for (size_t done = 0; done < size;) {
        ssize_t n = read(fd, bytes + done, size - done);
        if (n <= 0)
            return -1;
        done += (size_t)n;
    }
    LLVMFuzzerTestOneInput((const uint8_t *)bytes, size);
    return 1;
}

int main(int argc, char **argv)
{
    int files = 0;

    for (int i = 1; i < argc; i++) {
        DIR *dir = opendir(argv[i]);
        if (!dir) {
            fprintf(stderr, "open corpus %s: %s\n", argv[i], strerror(errno));
            return 1;
        }
        for (struct dirent *d; (d = readdir(dir));) {
            int n = replay_file(dirfd(dir), d->d_name);
            if (n < 0) {
                fprintf(stderr, "read %s/%s: %s\n", argv[i], d->d_name, strerror(errno));
                closedir(dir);
                return 1;
            }
            files += n;
        }
        closedir(dir);
    }
    printf("%d inputs\n", files);
    /* An empty corpus would make this a test that cannot fail. */
    return files > 0 ? 0 : 1;
}
