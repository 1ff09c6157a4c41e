/* SPDX-License-Identifier: Apache-2.0 */
#include "cgroup/stats.h"

#include <fcntl.h>

#include "base/fs.h"
#include "base/str.h"

char *stats_read(const char *dir, const char *file)
{
    _free_ char *path = dir ? fs_join(dir, file) : NULL;
    char *text = NULL;
    size_t n;

    if (!path || fs_read_file(AT_FDCWD, path, STATS_FILE_MAX, &text, &n) < 0)
        return NULL;
    return text;
}

uint64_t stats_number(const char *dir, const char *file, uint64_t otherwise)
{
    _free_ char *text = stats_read(dir, file);
    uint64_t value;

    if (!text)
        return 0;
    text[strcspn(text, "\n ")] = '\0';
    return str_to_u64(text, &value) == 0 ? value : otherwise;
}

char *stats_line(char **text)
{
    char *line = *text;

    if (!*line)
        return NULL;
    size_t len = strcspn(line, "\n");
    *text = line + len + (line[len] == '\n');
    line[len] = '\0';
    return line;
}

char *stats_word(char **line)
{
    char *word = *line + strspn(*line, " \t");

    if (!*word)
        return NULL;
    size_t len = strcspn(word, " \t");
    *line = word + len + (word[len] != '\0');
    word[len] = '\0';
    return word;
}

bool stats_fields(const char *dir, const char *file, const struct stats_field *fields, size_t n,
                  void *message)
{
    _free_ char *text = stats_read(dir, file);
    char *rest = text;

    if (!text)
        return false;
    for (char *line; (line = stats_line(&rest));) {
        const char *name = stats_word(&line);
        const char *number = stats_word(&line);
        uint64_t value;
        if (!number || str_to_u64(number, &value) < 0)
            continue;
        for (size_t i = 0; i < n; i++)
            if (str_eq(fields[i].name, name))
                *(uint64_t *)((char *)message + fields[i].at) = value;
    }
    return true;
}

void *stats_message(const ProtobufCMessageDescriptor *descriptor)
{
    void *m = malloc(descriptor->sizeof_message);

    if (m)
        protobuf_c_message_init(descriptor, m);
    return m;
}

void *stats_append(size_t *n, void *items, const ProtobufCMessageDescriptor *descriptor)
{
    void ***array = items;

    if (*n >= STATS_ITEMS_MAX)
        return NULL;
    void *m = stats_message(descriptor);
    if (!m)
        return NULL;
    if ((*n & (*n + 1)) == 0) { /* room is doubled at 0, 1, 3, 7, ... */
        void **grown = realloc(*array, (2 * *n + 1) * sizeof(*grown));
        if (!grown) {
            free(m);
            return NULL;
        }
        *array = grown;
    }
    (*array)[(*n)++] = m;
    return m;
}

bool stats_rdma_line(char *line, struct stats_rdma *ret)
{
    struct stats_rdma r = {.device = stats_word(&line)};

    if (!r.device)
        return false;
    for (const char *word; (word = stats_word(&line));) {
        const char *number;
        uint32_t *to = NULL;
        if ((number = str_after_prefix(word, "hca_handle=")))
            to = &r.hca_handles;
        else if ((number = str_after_prefix(word, "hca_object=")))
            to = &r.hca_objects;
        if (to && str_to_u32(number, to) < 0)
            *to = UINT32_MAX; /* "max" */
    }
    *ret = r;
    return true;
}
