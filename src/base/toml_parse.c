/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>

#include "base/str.h"
#include "base/toml_parser.h"

struct key_part {
    char *s;
    size_t len;
    const char *at;
    unsigned line;
};

/* A dotted key, taken apart. */
struct key_path {
    struct key_part parts[TOML_MAX_DEPTH];
    unsigned n;
};

static void key_path_done(struct key_path *k)
{
    for (unsigned i = 0; i < k->n; i++)
        free(k->parts[i].s);
}

int toml_fail(struct toml_parser *p, const char *at, const char *format, ...)
{
    unsigned line = 1, column = 1;
    const char *line_start = p->text;
    char why[512];
    va_list args;

    for (const char *s = p->text; s < at; s++) {
        if (*s == '\n') {
            line++;
            line_start = s + 1;
        }
    }
    for (const char *s = line_start; s < at; s++)
        column += ((uint8_t)*s & 0xc0) != 0x80;
    va_start(args, format);
    vsnprintf(why, sizeof(why), format, args);
    va_end(args);
    return err_set(p->e, ERR_INVALID_ARGUMENT, "%.1024s:%u:%u: %s", p->name, line, column, why);
}

const char *toml_seen(const struct toml_parser *p, char out[16])
{
    uint32_t c;
    int len = str_utf8_decode(p->s, (size_t)(p->end - p->s), &c);

    if (p->s == p->end)
        return "the end of the file";
    if (c == '\n' || c == '\r')
        return "the end of the line";
    if (len < 0 || !str_is_printable(c))
        snprintf(out, 16, "byte 0x%02x", (uint8_t)*p->s);
    else
        snprintf(out, 16, "'%.*s'", len, p->s);
    return out;
}

/* The line of a place at or behind the last one asked for. */
static unsigned line_of(struct toml_parser *p, const char *at)
{
    for (; p->line_from < at; p->line_from++)
        p->line += *p->line_from == '\n';
    return p->line;
}

static struct toml_value *new_value(struct toml_parser *p, enum toml_type type,
                                    enum toml_origin origin, unsigned line)
{
    if (++p->n_values > TOML_MAX_VALUES) {
        toml_fail(p, p->s, "more than %d values", TOML_MAX_VALUES);
        return NULL;
    }
    struct toml_value *v = calloc(1, sizeof(*v));
    if (!v) {
        err_oom(p->e);
        return NULL;
    }
    v->type = type;
    v->origin = origin;
    v->line = line;
    return v;
}

static uint32_t hash_of(const struct key_part *k)
{
    uint32_t h = 2166136261u; /* FNV-1a */

    for (size_t i = 0; i < k->len; i++)
        h = (h ^ (uint8_t)k->s[i]) * 16777619u;
    return h;
}

static struct toml_value *find(const struct toml_value *table, const struct key_part *k)
{
    uint32_t hash = hash_of(k);

    for (size_t i = 0; i < table->table.n; i++) {
        const struct toml_member *m = &table->table.members[i];
        if (m->hash == hash && m->key_len == k->len && memcmp(m->key, k->s, k->len) == 0)
            return m->value;
    }
    return NULL;
}

/* Takes the key, and the value also on failure. */
static int table_add(struct toml_parser *p, struct toml_value *table, struct key_part *k,
                     struct toml_value *value)
{
    uint32_t hash = hash_of(k);
    int r = 0;

    if (++p->n_keys > TOML_MAX_KEYS) {
        r = toml_fail(p, k->at, "more than %d keys", TOML_MAX_KEYS);
    } else if (table->table.n == table->table.allocated) {
        size_t room = table->table.allocated ? 2 * table->table.allocated : 4;
        struct toml_member *members = reallocarray(table->table.members, room, sizeof(*members));
        if (!members) {
            r = err_oom(p->e);
        } else {
            table->table.members = members;
            table->table.allocated = room;
        }
    }
    if (r < 0) {
        toml_free(value);
        return r;
    }
    table->table.members[table->table.n++] = (struct toml_member){
        .key_len = k->len,
        .hash = hash,
        .line = k->line,
        .key = TAKE(k->s),
        .value = value,
    };
    return 0;
}

/* Takes the item also on failure. */
static int array_add(struct toml_parser *p, struct toml_value *array, struct toml_value *item)
{
    if (array->array.n == array->array.allocated) {
        size_t room = array->array.allocated ? 2 * array->array.allocated : 4;
        struct toml_value **items = reallocarray(array->array.items, room, sizeof(*items));
        if (!items) {
            toml_free(item);
            return err_oom(p->e);
        }
        array->array.items = items;
        array->array.allocated = room;
    }
    array->array.items[array->array.n++] = item;
    return 0;
}

static void skip_blanks(struct toml_parser *p)
{
    while (toml_peek(p, 0) == ' ' || toml_peek(p, 0) == '\t')
        p->s++;
}

static bool skip_newline(struct toml_parser *p)
{
    if (toml_peek(p, 0) == '\r' && toml_peek(p, 1) == '\n')
        p->s++;
    if (toml_peek(p, 0) != '\n')
        return false;
    p->s++;
    return true;
}

static int skip_comment(struct toml_parser *p)
{
    if (toml_peek(p, 0) != '#')
        return 0;
    for (; p->s < p->end && *p->s != '\n'; p->s++) {
        if (*p->s == '\r' && toml_peek(p, 1) == '\n')
            break;
        if (((uint8_t)*p->s < 0x20 && *p->s != '\t') || *p->s == 0x7f)
            return toml_fail(p, p->s, "control character 0x%02x in a comment", (uint8_t)*p->s);
    }
    return 0;
}

/* White space, comments and newlines. */
static int skip_lines(struct toml_parser *p)
{
    do {
        skip_blanks(p);
        int r = skip_comment(p);
        if (r < 0)
            return r;
    } while (skip_newline(p));
    return 0;
}

static int end_of_line(struct toml_parser *p)
{
    char seen[16];

    skip_blanks(p);
    int r = skip_comment(p);
    if (r < 0)
        return r;
    if (!skip_newline(p) && p->s < p->end)
        return toml_fail(p, p->s, "expected the end of the line, found %s", toml_seen(p, seen));
    return 0;
}

static bool is_bare_char(char c)
{
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '_' ||
           c == '-';
}

static int parse_key_part(struct toml_parser *p, struct key_part *k)
{
    const char *start = p->s;
    char c = toml_peek(p, 0), seen[16];

    k->at = start;
    k->line = line_of(p, start);
    if (c == '"' || c == '\'')
        return toml_scan_string(p, true, &k->s, &k->len);
    while (is_bare_char(toml_peek(p, 0)))
        p->s++;
    if (p->s == start)
        return toml_fail(p, start, "expected a key, found %s", toml_seen(p, seen));
    k->len = (size_t)(p->s - start);
    k->s = strndup(start, k->len);
    return k->s ? 0 : err_oom(p->e);
}

/* Parts with dots between them, and the white space around and behind them. */
static int parse_key(struct toml_parser *p, struct key_path *k)
{
    for (;;) {
        skip_blanks(p);
        if (k->n == TOML_MAX_DEPTH)
            return toml_fail(p, p->s, "keys nest more than %d deep", TOML_MAX_DEPTH);
        int r = parse_key_part(p, &k->parts[k->n]);
        if (r < 0)
            return r;
        k->n++;
        skip_blanks(p);
        if (toml_peek(p, 0) != '.')
            return 0;
        p->s++;
    }
}

static int parse_value(struct toml_parser *p, unsigned depth, struct toml_value **ret);

static int parse_array(struct toml_parser *p, unsigned depth, struct toml_value *array)
{
    const char *start = p->s++;
    char seen[16];

    for (;;) {
        struct toml_value *item;
        int r = skip_lines(p);
        if (r < 0)
            return r;
        if (toml_peek(p, 0) == ']')
            break;
        if (p->s == p->end)
            return toml_fail(p, start, "the array that begins here is not closed");
        r = parse_value(p, depth, &item);
        if (r >= 0)
            r = array_add(p, array, item);
        if (r >= 0)
            r = skip_lines(p);
        if (r < 0)
            return r;
        if (toml_peek(p, 0) == ',')
            p->s++;
        else if (toml_peek(p, 0) != ']')
            return toml_fail(p, p->s, "expected , or ] in an array, found %s", toml_seen(p, seen));
    }
    p->s++;
    return 0;
}

/* The table a dotted key puts its last part into, made as needed. */
static int descend_dots(struct toml_parser *p, struct toml_value *table, struct key_path *k,
                        struct toml_value **ret)
{
    for (unsigned i = 0; i + 1 < k->n; i++) {
        struct key_part *part = &k->parts[i];
        struct toml_value *next = find(table, part);
        if (!next) {
            next = new_value(p, TOML_TABLE, TOML_BY_DOTS, part->line);
            if (!next)
                return ERR_RETURN;
            int r = table_add(p, table, part, next);
            if (r < 0)
                return r;
        } else if (next->type != TOML_TABLE) {
            return toml_fail(p, part->at, "key %.64s is %s since line %u, not a table", part->s,
                             toml_type_name(next->type), next->line);
        } else if (next->origin == TOML_INLINE || next->origin == TOML_BY_HEADER) {
            return toml_fail(p, part->at,
                             "table %.64s is defined in line %u; a dotted key cannot add to it",
                             part->s, next->line);
        }
        next->origin = TOML_BY_DOTS;
        table = next;
    }
    *ret = table;
    return 0;
}

/* key = value into table, which is `depth` deep. */
static int parse_pair(struct toml_parser *p, struct toml_value *table, unsigned depth)
{
    _cleanup_(key_path_done) struct key_path k = {};
    struct toml_value *value, *old;
    char seen[16];

    int r = parse_key(p, &k);
    if (r < 0)
        return r;
    if (toml_peek(p, 0) != '=')
        return toml_fail(p, p->s, "expected = behind the key, found %s", toml_seen(p, seen));
    p->s++;
    skip_blanks(p);
    struct key_part *last = &k.parts[k.n - 1];
    r = descend_dots(p, table, &k, &table);
    if (r < 0)
        return r;
    if ((old = find(table, last)))
        return toml_fail(p, last->at, "key %.64s is already defined in line %u", last->s,
                         old->line);
    r = parse_value(p, depth + k.n - 1, &value);
    if (r < 0)
        return r;
    return table_add(p, table, last, value);
}

static int parse_inline_table(struct toml_parser *p, unsigned depth, struct toml_value *table)
{
    char seen[16];

    p->s++;
    skip_blanks(p);
    if (toml_peek(p, 0) == '}') {
        p->s++;
        return 0;
    }
    for (;;) {
        int r = parse_pair(p, table, depth);
        if (r < 0)
            return r;
        skip_blanks(p);
        if (toml_peek(p, 0) == '}')
            break;
        if (toml_peek(p, 0) != ',')
            return toml_fail(p, p->s, "expected , or } in an inline table, found %s",
                             toml_seen(p, seen));
        p->s++;
    }
    p->s++;
    return 0;
}

/* A value `depth` deep. */
static int parse_value(struct toml_parser *p, unsigned depth, struct toml_value **ret)
{
    char c = toml_peek(p, 0);
    int r;

    if (depth >= TOML_MAX_DEPTH)
        return toml_fail(p, p->s, "values nest more than %d deep", TOML_MAX_DEPTH);
    /* An integer has nothing to be freed while it is filled. */
    _cleanup_(toml_freep) struct toml_value *v =
        new_value(p, TOML_INTEGER, TOML_INLINE, line_of(p, p->s));
    if (!v)
        return ERR_RETURN;
    if (c == '"' || c == '\'') {
        r = toml_scan_string(p, false, &v->string.bytes, &v->string.len);
        if (r >= 0)
            v->type = TOML_STRING;
    } else if (c == '[') {
        v->type = TOML_ARRAY;
        r = parse_array(p, depth + 1, v);
    } else if (c == '{') {
        v->type = TOML_TABLE;
        r = parse_inline_table(p, depth + 1, v);
    } else {
        r = toml_scan_scalar(p, v);
    }
    if (r < 0)
        return r;
    *ret = TAKE(v);
    return 0;
}

/* One step on the way to the table that a header names. */
static int descend_header(struct toml_parser *p, struct toml_value *table, struct key_part *part,
                          struct toml_value **ret)
{
    struct toml_value *next = find(table, part);

    if (!next) {
        next = new_value(p, TOML_TABLE, TOML_BY_PATH, part->line);
        if (!next)
            return ERR_RETURN;
        int r = table_add(p, table, part, next);
        if (r < 0)
            return r;
    } else if (next->origin == TOML_INLINE) {
        return toml_fail(p, part->at,
                         "%.64s is %s complete since line %u; a header cannot add to it", part->s,
                         toml_type_name(next->type), next->line);
    }
    /* Of [[tables]] the last one is meant. */
    *ret = next->type == TOML_ARRAY ? next->array.items[next->array.n - 1] : next;
    return 0;
}

static int open_table(struct toml_parser *p, struct toml_value *parent, struct key_part *k)
{
    struct toml_value *table = find(parent, k);

    if (table) {
        if (table->type != TOML_TABLE || table->origin != TOML_BY_PATH)
            return toml_fail(p, k->at, "%.64s is already defined in line %u", k->s, table->line);
        table->origin = TOML_BY_HEADER;
        table->line = k->line;
    } else {
        table = new_value(p, TOML_TABLE, TOML_BY_HEADER, k->line);
        if (!table)
            return ERR_RETURN;
        int r = table_add(p, parent, k, table);
        if (r < 0)
            return r;
    }
    p->table = table;
    return 0;
}

static int open_array_element(struct toml_parser *p, struct toml_value *parent, struct key_part *k)
{
    struct toml_value *array = find(parent, k);
    int r;

    if (array && (array->type != TOML_ARRAY || array->origin == TOML_INLINE))
        return toml_fail(p, k->at, "%.64s is %s since line %u, not an array of tables", k->s,
                         toml_type_name(array->type), array->line);
    struct toml_value *element = new_value(p, TOML_TABLE, TOML_BY_HEADER, k->line);
    if (!element)
        return ERR_RETURN;
    if (!array) {
        array = new_value(p, TOML_ARRAY, TOML_BY_HEADER, k->line);
        if (!array) {
            toml_free(element);
            return ERR_RETURN;
        }
        /* Filled first: an empty array of tables must never be in the tree. */
        r = array_add(p, array, element);
        if (r < 0) {
            toml_free(array);
            return r;
        }
        r = table_add(p, parent, k, array);
    } else {
        r = array_add(p, array, element);
    }
    if (r >= 0)
        p->table = element;
    return r;
}

static int parse_header(struct toml_parser *p)
{
    _cleanup_(key_path_done) struct key_path k = {};
    bool array = toml_peek(p, 1) == '[';
    struct toml_value *table = p->root;
    char seen[16];

    p->s += array ? 2 : 1;
    int r = parse_key(p, &k);
    if (r < 0)
        return r;
    if (toml_peek(p, 0) != ']' || (array && toml_peek(p, 1) != ']'))
        return toml_fail(p, p->s, "expected %s at the end of the header, found %s",
                         array ? "]]" : "]", toml_seen(p, seen));
    p->s += array ? 2 : 1;
    for (unsigned i = 0; i + 1 < k.n; i++) {
        r = descend_header(p, table, &k.parts[i], &table);
        if (r < 0)
            return r;
    }
    p->depth = k.n;
    r = array ? open_array_element(p, table, &k.parts[k.n - 1])
              : open_table(p, table, &k.parts[k.n - 1]);
    return r < 0 ? r : end_of_line(p);
}

static int check_utf8(struct toml_parser *p)
{
    uint32_t c;

    for (const char *s = p->text; s < p->end;) {
        int len = str_utf8_decode(s, (size_t)(p->end - s), &c);
        if (len < 0)
            return toml_fail(p, s, "byte 0x%02x is not UTF-8", (uint8_t)*s);
        s += len;
    }
    return 0;
}

int toml_parse(const char *text, size_t n, const char *name, struct toml_value **ret, struct err *e)
{
    struct toml_parser p = {
        .name = name, .text = text, .end = text + n, .s = text, .line = 1, .e = e};

    if (n > TOML_MAX_BYTES)
        return err_set(e, ERR_INVALID_ARGUMENT, "%.1024s: larger than %d bytes", name,
                       TOML_MAX_BYTES);
    int r = check_utf8(&p);
    if (r < 0)
        return r;
    if (n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        p.s += 3; /* a byte order mark */
    p.line_from = text;
    _cleanup_(toml_freep) struct toml_value *root = new_value(&p, TOML_TABLE, TOML_BY_HEADER, 1);
    if (!root)
        return ERR_RETURN;
    p.root = p.table = root;
    for (;;) {
        r = skip_lines(&p);
        if (r < 0)
            return r;
        if (p.s == p.end)
            break;
        if (*p.s == '[') {
            r = parse_header(&p);
        } else {
            r = parse_pair(&p, p.table, p.depth);
            if (r >= 0)
                r = end_of_line(&p);
        }
        if (r < 0)
            return r;
    }
    *ret = TAKE(root);
    return 0;
}
