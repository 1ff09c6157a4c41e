/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program never calls setlocale(3), and must not: in the C locale libarchive cannot convert the
 * UTF-8 of PAX headers, says so with a warning and hands out the bytes untouched, which is what a
 * file system wants. In a UTF-8 locale it would normalise names (e + U+0301 becomes U+00E9).
 */
#include "worker/tar_reader.h"

#include "base/str.h"

static int source_failed(struct tar_reader *t, struct err *e)
{
    if (e)
        *e = t->source_err;
    return ERR_RETURN;
}

static int archive_failed(struct tar_reader *t, struct err *e)
{
    if (t->source_failed)
        return source_failed(t, e);
    if (archive_errno(t->archive) == ENOMEM)
        return err_oom(e);
    return err_set(e, ERR_INVALID_ARGUMENT, "the tar archive cannot be read: %s",
                   str_or_empty(archive_error_string(t->archive)));
}

static la_ssize_t read_source(struct archive *archive, void *client, const void **ret)
{
    struct tar_reader *t = client;
    const uint8_t *bytes;
    size_t len = 0;

    int r;
    do
        r = t->fn(t->source, &bytes, &len, &t->source_err);
    while (r > 0 && len == 0);
    if (r < 0) {
        t->source_failed = true;
        archive_set_error(archive, EIO, "read failed");
        return -1;
    }
    *ret = bytes;
    return r == 0 ? 0 : (la_ssize_t)len;
}

int tar_reader_init(struct tar_reader *t, tar_source_fn fn, void *source, uint64_t max_entries,
                    struct err *e)
{
    *t = (struct tar_reader){.fn = fn, .source = source, .max_entries = max_entries};
    t->archive = archive_read_new();
    if (!t->archive)
        return err_oom(e);
    /* "empty": a layer of no bytes at all is a layer without entries. */
    if (archive_read_support_format_tar(t->archive) != ARCHIVE_OK ||
        archive_read_support_format_empty(t->archive) != ARCHIVE_OK ||
        archive_read_open(t->archive, t, NULL, read_source, NULL) != ARCHIVE_OK) {
        archive_failed(t, e);
        tar_reader_done(t);
        return ERR_RETURN;
    }
    return 0;
}

void tar_reader_done(struct tar_reader *t)
{
    if (t->archive)
        archive_read_free(t->archive);
    t->archive = NULL;
}

int tar_reader_next(struct tar_reader *t, struct archive_entry **ret, struct err *e)
{
    int r = archive_read_next_header(t->archive, ret);
    if (r == ARCHIVE_EOF)
        return t->source_failed ? source_failed(t, e) : 0;
    if (r == ARCHIVE_WARN) {
        const char *why = archive_error_string(t->archive);
        if (!why || !strstr(why, "can't be converted"))
            return archive_failed(t, e);
    } else if (r != ARCHIVE_OK) {
        return archive_failed(t, e);
    }
    if (++t->entries > t->max_entries)
        return err_set(e, ERR_RESOURCE_EXHAUSTED, "the archive has more than %llu entries",
                       (unsigned long long)t->max_entries);
    return 1;
}

int tar_reader_block(struct tar_reader *t, const void **ret, size_t *ret_len, int64_t *ret_offset,
                     struct err *e)
{
    int r = archive_read_data_block(t->archive, ret, ret_len, ret_offset);
    if (r == ARCHIVE_EOF)
        return 0;
    if (r != ARCHIVE_OK)
        return archive_failed(t, e);
    return 1;
}
