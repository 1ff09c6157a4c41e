/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables for people: a heading, rows, columns as wide as their widest cell and two spaces apart.
 * Names that others chose cannot move the cursor or forge a row: what is not printable is shown
 * escaped.
 */
#pragma once

#include <stdio.h>

#include "base/attr.h"

struct table {
    size_t n_columns;
    char **cells; /* row by row, the heading first */
    size_t n_cells, allocated;
    bool failed; /* out of memory on the way; table_print() reports it */
};

/* headings: n_columns of them. */
void table_init(struct table *t, size_t n_columns, const char *const *headings);
void table_done(struct table *t);
/* Adds the next cell of the current row; NULL is shown as "-". */
void table_cell(struct table *t, const char *text);
void table_cellf(struct table *t, const char *format, ...) _printf_(2, 3);
/* Unfinished rows are filled up. 0 or -ENOMEM. */
int table_print(struct table *t, FILE *out);

/* A copy of s in which everything but printable characters is escaped (\n, \x1b). NULL: out of
 * memory. */
char *table_escape(const char *s);
/* Columns a string takes on a terminal, one a character. */
size_t table_width(const char *s);

#define TABLE_SIZE_MAX 16
/* "4.2 MiB". */
void table_format_size(int64_t bytes, char out[TABLE_SIZE_MAX]);
#define TABLE_AGE_MAX 24
/* "5 minutes"; seconds below 0 read as 0. */
void table_format_age(int64_t seconds, char out[TABLE_AGE_MAX]);
