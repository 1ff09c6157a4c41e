/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/tar_writer.h"

#include "base/str.h"

static la_ssize_t write_sink(struct archive *archive, void *client, const void *bytes, size_t n)
{
    struct tar_writer *t = client;

    if (t->sink_failed || t->fn(t->sink, bytes, n, &t->sink_err) < 0) {
        t->sink_failed = true;
        archive_set_error(archive, EIO, "write failed");
        return -1;
    }
    return (la_ssize_t)n;
}

static int failed(struct tar_writer *t, struct err *e)
{
    if (t->sink_failed) {
        if (e)
            *e = t->sink_err;
        return ERR_RETURN;
    }
    if (archive_errno(t->archive) == ENOMEM)
        return err_oom(e);
    return err_set(e, ERR_INTERNAL, "the tar archive cannot be written: %s",
                   str_or_empty(archive_error_string(t->archive)));
}

int tar_writer_init(struct tar_writer *t, tar_sink_fn fn, void *sink, struct err *e)
{
    *t = (struct tar_writer){.fn = fn, .sink = sink};
    t->archive = archive_write_new();
    t->entry = archive_entry_new();
    if (!t->archive || !t->entry) {
        tar_writer_done(t);
        return err_oom(e);
    }
    /* Blocks of a size would only be there for tapes. */
    if (archive_write_set_format_pax(t->archive) != ARCHIVE_OK ||
        archive_write_set_format_option(t->archive, "pax", "xattrheader", "SCHILY") != ARCHIVE_OK ||
        archive_write_set_bytes_per_block(t->archive, 0) != ARCHIVE_OK ||
        archive_write_set_bytes_in_last_block(t->archive, 1) != ARCHIVE_OK ||
        archive_write_open(t->archive, t, NULL, write_sink, NULL) != ARCHIVE_OK) {
        failed(t, e);
        tar_writer_done(t);
        return ERR_RETURN;
    }
    return 0;
}

void tar_writer_done(struct tar_writer *t)
{
    /* Freeing would close, and closing write the end. */
    t->sink_failed = true;
    if (t->archive)
        archive_write_free(t->archive);
    archive_entry_free(t->entry);
    t->archive = NULL;
    t->entry = NULL;
}

struct archive_entry *tar_writer_begin(struct tar_writer *t)
{
    return archive_entry_clear(t->entry);
}

int tar_writer_header(struct tar_writer *t, struct err *e)
{
    int r = archive_write_header(t->archive, t->entry);

    /* In the C locale names beyond ASCII cannot be converted: they are written untouched, with a
     * note in the header that says so. */
    if (r == ARCHIVE_WARN && strstr(str_or_empty(archive_error_string(t->archive)), "translate"))
        return 0;
    return r == ARCHIVE_OK ? 0 : failed(t, e);
}

int tar_writer_bytes(struct tar_writer *t, const void *bytes, size_t n, struct err *e)
{
    return archive_write_data(t->archive, bytes, n) == (la_ssize_t)n ? 0 : failed(t, e);
}

int tar_writer_finish(struct tar_writer *t, struct err *e)
{
    return archive_write_close(t->archive) == ARCHIVE_OK ? 0 : failed(t, e);
}
