/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/table.h"

#include <stdarg.h>

#include "base/buf.h"
#include "base/str.h"

#define CELL_MAX 65536

void table_init(struct table *t, size_t n_columns, const char *const *headings)
{
    *t = (struct table){.n_columns = n_columns};
    for (size_t i = 0; i < n_columns; i++)
        table_cell(t, headings[i]);
}

void table_done(struct table *t)
{
    for (size_t i = 0; i < t->n_cells; i++)
        free(t->cells[i]);
    free(t->cells);
    *t = (struct table){};
}

char *table_escape(const char *s)
{
    _cleanup_(buf_done) struct buf b = BUF_INIT(CELL_MAX);
    size_t left = strlen(s);
    int r = 0;

    while (left > 0 && r == 0) {
        uint32_t c = 0;
        int n = str_utf8_decode(s, left, &c);

        if (n <= 0) {
            r = buf_printf(&b, "\\x%02x", (unsigned)(unsigned char)*s);
            n = 1;
        } else if (c == '\n') {
            r = buf_append_str(&b, "\\n");
        } else if (c == '\t') {
            r = buf_append_str(&b, "\\t");
        } else if (!str_is_printable(c)) {
            r = buf_printf(&b, c < 0x100 ? "\\x%02x" : "\\u%04x", (unsigned)c);
        } else {
            r = buf_append(&b, s, (size_t)n);
        }
        s += n;
        left -= (size_t)n;
    }
    if (r == -ENOMEM)
        return NULL;
    return buf_take_str(&b); /* cut where it was over CELL_MAX */
}

static void add(struct table *t, char *text)
{
    if (!text)
        t->failed = true;
    if (t->failed) {
        free(text);
        return;
    }
    if (t->n_cells == t->allocated) {
        size_t allocated = t->allocated ? t->allocated * 2 : 64;
        char **cells = reallocarray(t->cells, allocated, sizeof(*cells));
        if (!cells) {
            t->failed = true;
            free(text);
            return;
        }
        t->cells = cells;
        t->allocated = allocated;
    }
    t->cells[t->n_cells++] = text;
}

void table_cell(struct table *t, const char *text)
{
    add(t, table_escape(str_empty(text) ? "-" : text));
}

void table_cellf(struct table *t, const char *format, ...)
{
    _free_ char *text = NULL;
    va_list args;

    va_start(args, format);
    text = str_vprintf(format, args);
    va_end(args);
    if (!text)
        t->failed = true;
    else
        table_cell(t, text);
}

size_t table_width(const char *s)
{
    size_t n = 0;

    for (; *s; s++) {
        if (((unsigned char)*s & 0xc0) != 0x80)
            n++;
    }
    return n;
}

int table_print(struct table *t, FILE *out)
{
    _free_ char *raw = NULL;
    size_t *widths;

    while (!t->failed && t->n_cells % t->n_columns != 0)
        table_cell(t, NULL);
    raw = calloc(t->n_columns, sizeof(*widths));
    if (t->failed || !raw)
        return -ENOMEM;
    widths = (size_t *)(void *)raw;
    for (size_t i = 0; i < t->n_cells; i++) {
        size_t *width = &widths[i % t->n_columns];
        *width = MAX_OF(*width, table_width(t->cells[i]));
    }
    for (size_t i = 0; i < t->n_cells; i++) {
        size_t column = i % t->n_columns;

        fputs(t->cells[i], out);
        if (column + 1 == t->n_columns)
            fputc('\n', out);
        else
            fprintf(out, "%*s", (int)(widths[column] - table_width(t->cells[i]) + 2), "");
    }
    return 0;
}

void table_format_size(int64_t bytes, char out[TABLE_SIZE_MAX])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)MAX_OF(bytes, 0);
    size_t unit = 0;

    while (value >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
        value /= 1024;
        unit++;
    }
    snprintf(out, TABLE_SIZE_MAX, unit > 0 && value < 10 ? "%.1f %s" : "%.0f %s", value,
             units[unit]);
}

void table_format_age(int64_t seconds, char out[TABLE_AGE_MAX])
{
    static const struct {
        int64_t seconds;
        const char *name;
    } units[] = {{86400, "day"}, {3600, "hour"}, {60, "minute"}, {1, "second"}};
    int64_t n = 0;
    size_t i = 0;

    seconds = MAX_OF(seconds, 0);
    while (i + 1 < ARRAY_SIZE(units) && seconds < units[i].seconds)
        i++;
    n = seconds / units[i].seconds;
    snprintf(out, TABLE_AGE_MAX, "%lld %s%s", (long long)n, units[i].name, n == 1 ? "" : "s");
}
