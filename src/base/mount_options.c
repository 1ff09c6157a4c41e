/* SPDX-License-Identifier: Apache-2.0 */
/* Option strings: the table of flags, and fitting overlay's long lists into a page. */
#include <sys/mount.h>

#include "base/buf.h"
#include "base/mount.h"

#define DATA_MAX (256 * 1024)
#define MS_PROPAGATION (MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE)

/* mount(8)'s words for mount(2)'s flags; `clear` takes the flag away again. */
static const struct option_flag {
    char name[16]; /* in place: no pointer to relocate at start */
    unsigned long flag;
    bool clear;
} option_flags[] = {
    {"async", MS_SYNCHRONOUS, true},
    {"atime", MS_NOATIME, true},
    {"bind", MS_BIND, false},
    {"defaults", 0, false},
    {"dev", MS_NODEV, true},
    {"diratime", MS_NODIRATIME, true},
    {"dirsync", MS_DIRSYNC, false},
    {"exec", MS_NOEXEC, true},
    {"mand", MS_MANDLOCK, false},
    {"noatime", MS_NOATIME, false},
    {"nodev", MS_NODEV, false},
    {"nodiratime", MS_NODIRATIME, false},
    {"noexec", MS_NOEXEC, false},
    {"nomand", MS_MANDLOCK, true},
    {"norelatime", MS_RELATIME, true},
    {"nostrictatime", MS_STRICTATIME, true},
    {"nosuid", MS_NOSUID, false},
    {"private", MS_PRIVATE, false},
    {"rbind", MS_BIND | MS_REC, false},
    {"relatime", MS_RELATIME, false},
    {"remount", MS_REMOUNT, false},
    {"ro", MS_RDONLY, false},
    {"rprivate", MS_PRIVATE | MS_REC, false},
    {"rshared", MS_SHARED | MS_REC, false},
    {"rslave", MS_SLAVE | MS_REC, false},
    {"runbindable", MS_UNBINDABLE | MS_REC, false},
    {"rw", MS_RDONLY, true},
    {"shared", MS_SHARED, false},
    {"slave", MS_SLAVE, false},
    {"strictatime", MS_STRICTATIME, false},
    {"suid", MS_NOSUID, true},
    {"sync", MS_SYNCHRONOUS, false},
    {"unbindable", MS_UNBINDABLE, false},
};

static const struct option_flag *find_flag(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(option_flags); i++)
        if (strcmp(option_flags[i].name, name) == 0)
            return &option_flags[i];
    return NULL;
}

int mount_parse_options(char *const *options, unsigned long *ret_flags,
                        unsigned long *ret_propagation, char **ret_data)
{
    _cleanup_(buf_done) struct buf data = BUF_INIT(DATA_MAX);
    unsigned long flags = 0, propagation = 0;

    for (; options && *options; options++) {
        const struct option_flag *f = find_flag(*options);
        if (f && (f->flag & MS_PROPAGATION)) {
            propagation |= f->flag;
        } else if (f && f->clear) {
            flags &= ~f->flag;
        } else if (f) {
            flags |= f->flag;
        } else if (strcmp(*options, "loop") != 0) {
            int r = data.len ? buf_append(&data, ",", 1) : 0;
            if (r == 0)
                r = buf_append_str(&data, *options);
            if (r < 0)
                return r;
        }
    }

    char *text = NULL;
    if (data.len > 0) {
        text = buf_take_str(&data);
        if (!text)
            return -ENOMEM;
    }
    *ret_flags = flags;
    *ret_propagation = propagation;
    *ret_data = text;
    return 0;
}

/* The end of one path of a lowerdir list: ':' separates, "\:" does not. */
static size_t lower_length(const char *s)
{
    size_t n = 0;

    while (s[n] && s[n] != ':' && s[n] != ',') {
        if (s[n] == '\\' && s[n + 1])
            n++;
        n++;
    }
    return n;
}

/* How long the directory is, with its '/', that all paths of the list begin with; 0: none. */
static size_t common_directory(const char *list)
{
    size_t common = lower_length(list);

    for (const char *s = list; *s && *s != ',';) {
        size_t n = lower_length(s), same = 0;
        while (same < common && same < n && s[same] == list[same])
            same++;
        common = same;
        s += n + (s[n] == ':');
    }
    while (common > 0 && list[common - 1] != '/')
        common--;
    return common;
}

int mount_shorten_overlay(const char *data, char **ret_dir, char **ret_data)
{
    static const char key[] = "lowerdir=";
    const char *list = data;

    while (list && strncmp(list, key, sizeof(key) - 1) != 0) {
        list = strchr(list, ',');
        if (list)
            list++;
    }
    if (!list)
        return -E2BIG;
    list += sizeof(key) - 1;
    size_t common = common_directory(list);
    if (common < 2 || list[0] != '/' || memchr(list, '\\', common))
        return -E2BIG;

    _free_ char *dir = strndup(list, common);
    _free_ char *shorter = malloc(strlen(data) + 1);
    if (!dir || !shorter)
        return -ENOMEM;
    size_t len = (size_t)(list - data);
    memcpy(shorter, data, len);
    const char *s = list;
    while (*s && *s != ',') {
        size_t n = lower_length(s);
        if (n <= common)
            return -E2BIG; /* the common directory is itself one of them */
        memcpy(shorter + len, s + common, n - common);
        len += n - common;
        s += n;
        if (*s == ':')
            shorter[len++] = *s++;
    }
    memcpy(shorter + len, s, strlen(s) + 1);
    *ret_dir = TAKE(dir);
    *ret_data = TAKE(shorter);
    return 0;
}
