/* SPDX-License-Identifier: Apache-2.0 */
#include "base/filter.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/pattern.h"
#include "base/str.h"

#define PATH_MAX_PARTS 64
/* Bytes of the expression that an error shows on either side of the fault. */
#define SHOWN_MAX 256

enum operator{ OP_PRESENT, OP_EQUAL, OP_NOT_EQUAL, OP_MATCHES };

struct selector {
    char **path;
    size_t n_path;
    enum operator op;
    char *value;
    struct pattern *pattern; /* of OP_MATCHES */
};

/* One expression: all of its selectors must hold. */
struct expression {
    struct selector *selectors;
    size_t n;
};

struct filter {
    bool all;
    struct expression *expressions;
    size_t n;
    size_t n_terms;
};

enum token_kind { TOKEN_END, TOKEN_QUOTED, TOKEN_WORD, TOKEN_SEPARATOR, TOKEN_OPERATOR, TOKEN_BAD };

struct token {
    enum token_kind kind;
    const char *s;
    size_t n;
    const char *why; /* of TOKEN_BAD */
};

struct parser {
    const char *input;
    const char *s; /* what is left */
    struct err *e;
};

static void selector_done(struct selector *s)
{
    strv_free(s->path);
    free(s->value);
    pattern_free(s->pattern);
}

struct filter *filter_free(struct filter *f)
{
    if (!f)
        return NULL;
    for (size_t i = 0; i < f->n; i++) {
        for (size_t j = 0; j < f->expressions[i].n; j++)
            selector_done(&f->expressions[i].selectors[j]);
        free(f->expressions[i].selectors);
    }
    free(f->expressions);
    free(f);
    return NULL;
}

/* The sentence, with the place of the fault marked in the expression. Returns ERR_RETURN. */
static _printf_(3, 4) int parse_error(struct parser *p, const char *at, const char *format, ...)
{
    char why[512];
    va_list args;
    uint32_t c;

    va_start(args, format);
    vsnprintf(why, sizeof(why), format, args);
    va_end(args);
    if (!*at)
        return err_set(p->e, ERR_INVALID_ARGUMENT,
                       "filters: parse error: [%.*s]: %s: invalid argument", 4 * SHOWN_MAX,
                       p->input, why);
    const char *from = at - p->input > SHOWN_MAX ? at - SHOWN_MAX : p->input;
    int len = str_utf8_decode(at, strlen(at), &c);
    if (len < 0)
        len = 1;
    return err_set(p->e, ERR_INVALID_ARGUMENT,
                   "filters: parse error: [%.*s >|%.*s|< %.*s]: %s: invalid argument",
                   (int)(at - from), from, len, at, SHOWN_MAX, at + len, why);
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_operator_char(char c)
{
    return c == '=' || c == '!' || c == '~';
}

static bool is_field_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* Length of the escape at s (behind the backslash), 0 if it is none. */
static size_t escape_len(const char *s, char quote)
{
    size_t digits = *s == 'x' ? 2 : *s == 'u' ? 4 : *s == 'U' ? 8 : 0;
    size_t letter = digits ? 1 : 0;
    int base = letter ? 16 : 8;

    if (*s && (strchr("abfnrtv\\", *s) || *s == quote))
        return 1;
    if (!letter)
        digits = 3;
    for (size_t i = 0; i < digits; i++)
        if (str_digit(s[letter + i], base) < 0)
            return 0;
    return letter + digits;
}

static void scan_quoted(struct parser *p, struct token *t)
{
    char quote = *t->s;
    const char *s = t->s + 1;

    while (*s != quote) {
        if (!*s || *s == '\n') {
            t->kind = TOKEN_BAD;
            t->why = "quoted literal not terminated";
            break;
        }
        if (*s++ != '\\')
            continue;
        size_t n = escape_len(s, quote);
        if (n == 0) {
            t->kind = TOKEN_BAD;
            t->why = *s && strchr("01234567xuU", *s) ? "illegal numeric escape sequence"
                                                     : "illegal escape sequence";
            break;
        }
        s += n;
    }
    if (t->kind == TOKEN_QUOTED)
        s++;
    t->n = (size_t)(s - t->s);
    p->s = s;
}

/* as_value: a word may have any printable characters but spaces and commas. */
static struct token scan(struct parser *p, bool as_value)
{
    while (is_space(*p->s))
        p->s++;
    struct token t = {.s = p->s};
    if (!*p->s) {
        t.kind = TOKEN_END;
        return t;
    }
    if (strchr("\"/|", *p->s)) {
        t.kind = TOKEN_QUOTED;
        scan_quoted(p, &t);
        return t;
    }
    if (*p->s == ',' || *p->s == '.') {
        t.kind = TOKEN_SEPARATOR;
        p->s++;
    } else if (is_operator_char(*p->s)) {
        t.kind = TOKEN_OPERATOR;
        while (is_operator_char(*p->s))
            p->s++;
    } else if (as_value) {
        uint32_t c;
        int len;
        t.kind = TOKEN_WORD;
        while (*p->s && *p->s != ',' && !is_space(*p->s) &&
               (len = str_utf8_decode(p->s, strlen(p->s), &c)) > 0 && str_is_printable(c))
            p->s += len;
    } else {
        t.kind = TOKEN_WORD;
        while (is_field_char(*p->s))
            p->s++;
    }
    t.n = (size_t)(p->s - t.s);
    if (t.n == 0) {
        t.kind = TOKEN_BAD;
        t.why = "unexpected input";
    }
    return t;
}

static struct token peek(struct parser *p)
{
    const char *s = p->s;
    struct token t = scan(p, false);

    p->s = s;
    return t;
}

static bool token_is(const struct token *t, enum token_kind kind, const char *s)
{
    return t->kind == kind && t->n == strlen(s) && memcmp(t->s, s, t->n) == 0;
}

/* One character of a quoted token into out. Returns the bytes read, 0 when it stands for none. */
static size_t unquote_one(const char *s, char quote, char *out, size_t *n_out)
{
    static const char letters[] = "abfnrtv", values[] = "\a\b\f\n\r\t\v";
    const char *p;

    if (*s != '\\') {
        out[(*n_out)++] = *s;
        return 1;
    }
    size_t n = escape_len(s + 1, quote);
    if (n == 1) {
        p = strchr(letters, s[1]);
        out[(*n_out)++] = p ? values[p - letters] : s[1];
        return 2;
    }
    int base = str_digit(s[1], 8) >= 0 ? 8 : 16;
    uint32_t c = 0;
    for (size_t i = base == 8 ? 0 : 1; i < n; i++)
        c = c * (uint32_t)base + (uint32_t)str_digit(s[1 + i], base);
    if (c == 0)
        return 0; /* no field can hold a NUL */
    if (base == 8 || s[1] == 'x') {
        if (c > 0xff)
            return 0;
        out[(*n_out)++] = (char)c;
        return 1 + n;
    }
    if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return 0;
    *n_out += str_utf8_encode(c, out + *n_out);
    return 1 + n;
}

/* alternatives: quotes other than " are allowed. */
static int unquote(struct parser *p, const struct token *t, bool alternatives, char **ret)
{
    size_t n = 0;

    if (!alternatives && *t->s != '"')
        return parse_error(p, t->s, "invalid quote encountered");
    _free_ char *out = malloc(t->n + 1); /* no escape is shorter than what it stands for */
    if (!out)
        return err_oom(p->e);
    for (size_t i = 1; i < t->n - 1;) {
        size_t used = unquote_one(t->s + i, *t->s, out, &n);
        if (used == 0)
            return parse_error(p, t->s + i, "unquoting failed: invalid syntax");
        i += used;
    }
    out[n] = '\0';
    *ret = TAKE(out);
    return 0;
}

static int parse_field(struct parser *p, struct selector *sel)
{
    struct token t = scan(p, false);
    _free_ char *field = NULL;

    if (t.kind == TOKEN_BAD && t.n > 0)
        return parse_error(p, t.s, "%s", t.why);
    if (t.kind == TOKEN_WORD) {
        if (!(field = strndup(t.s, t.n)))
            return err_oom(p->e);
    } else if (t.kind == TOKEN_QUOTED) {
        int r = unquote(p, &t, false, &field);
        if (r < 0)
            return r;
    } else {
        return parse_error(p, t.s, "expected field or quoted");
    }
    if (sel->n_path == PATH_MAX_PARTS)
        return parse_error(p, t.s, "more than %d fields in a path", PATH_MAX_PARTS);
    if (strv_push(&sel->path, field) < 0)
        return err_oom(p->e);
    sel->n_path++;
    return 0;
}

static int parse_operator(struct parser *p, struct selector *sel)
{
    struct token t = scan(p, false);

    if (t.kind == TOKEN_BAD && t.n > 0)
        return parse_error(p, t.s, "%s", t.why);
    if (t.kind != TOKEN_OPERATOR)
        return parse_error(p, t.s, "expected an operator (\"==\"|\"!=\"|\"~=\")");
    if (token_is(&t, TOKEN_OPERATOR, "=="))
        sel->op = OP_EQUAL;
    else if (token_is(&t, TOKEN_OPERATOR, "!="))
        sel->op = OP_NOT_EQUAL;
    else if (token_is(&t, TOKEN_OPERATOR, "~="))
        sel->op = OP_MATCHES;
    else
        return parse_error(p, t.s, "unsupported operator \"%.*s\"", (int)MIN_OF(t.n, 64u), t.s);
    return 0;
}

static int parse_value(struct parser *p, struct selector *sel)
{
    struct token t = scan(p, true);
    const char *why;
    int r;

    if (t.kind == TOKEN_BAD && t.n > 0)
        return parse_error(p, t.s, "%s", t.why);
    if (t.kind == TOKEN_WORD) {
        if (!(sel->value = strndup(t.s, t.n)))
            return err_oom(p->e);
    } else if (t.kind == TOKEN_QUOTED) {
        r = unquote(p, &t, sel->op == OP_MATCHES, &sel->value);
        if (r < 0)
            return r;
    } else {
        return parse_error(p, t.s, "expected value or quoted");
    }
    if (sel->op != OP_MATCHES)
        return 0;
    r = pattern_compile(sel->value, &sel->pattern, &why);
    if (r == -EINVAL)
        return parse_error(p, t.s, "error parsing regexp: %s: `%.256s`", why, sel->value);
    return r < 0 ? err_oom(p->e) : 0;
}

static int parse_selector(struct parser *p, struct selector *sel)
{
    int r = parse_field(p, sel);

    for (struct token t = peek(p); r >= 0 && token_is(&t, TOKEN_SEPARATOR, "."); t = peek(p)) {
        scan(p, false);
        r = parse_field(p, sel);
    }
    if (r < 0)
        return r;
    struct token t = peek(p);
    if (t.kind == TOKEN_END || token_is(&t, TOKEN_SEPARATOR, ",")) {
        sel->op = OP_PRESENT;
        return 0;
    }
    r = parse_operator(p, sel);
    return r < 0 ? r : parse_value(p, sel);
}

static int parse_expression(struct parser *p, struct filter *f, struct expression *x)
{
    for (size_t room = 0;;) {
        if (f->n_terms++ >= FILTER_MAX_TERMS)
            return err_set(p->e, ERR_INVALID_ARGUMENT,
                           "filters: more than %d selectors: invalid argument", FILTER_MAX_TERMS);
        if (x->n == room) {
            room = room ? 2 * room : 2;
            struct selector *grown = reallocarray(x->selectors, room, sizeof(*grown));
            if (!grown)
                return err_oom(p->e);
            x->selectors = grown;
        }
        struct selector *sel = &x->selectors[x->n++];
        *sel = (struct selector){};
        int r = parse_selector(p, sel);
        if (r < 0)
            return r;

        const char *end = p->s;
        struct token t = scan(p, false);
        if (t.kind == TOKEN_END)
            return 0;
        if (!token_is(&t, TOKEN_SEPARATOR, ",")) {
            uint32_t c;
            int len = str_utf8_decode(end, strlen(end), &c);
            return parse_error(p, end, "unexpected input: %.*s", MAX_OF(len, 1), end);
        }
    }
}

int filter_parse(const char *const *expressions, size_t n, struct filter **ret, struct err *e)
{
    _cleanup_(filter_freep) struct filter *f = calloc(1, sizeof(*f));

    if (!f)
        return err_oom(e);
    f->all = n == 0;
    if (n > FILTER_MAX_TERMS)
        return err_set(e, ERR_INVALID_ARGUMENT, "filters: more than %d filters: invalid argument",
                       FILTER_MAX_TERMS);
    if (n && !(f->expressions = calloc(n, sizeof(*f->expressions))))
        return err_oom(e);
    for (size_t i = 0; i < n; i++) {
        struct parser p = {.input = expressions[i], .s = expressions[i], .e = e};
        size_t len = strnlen(p.s, FILTER_MAX_LEN + 1);
        if (len > FILTER_MAX_LEN)
            return err_set(e, ERR_INVALID_ARGUMENT,
                           "filters: filter longer than %d bytes: invalid argument",
                           FILTER_MAX_LEN);
        if (len == 0) {
            f->all = true;
            continue;
        }
        if (!str_is_utf8(p.s, len))
            return err_set(e, ERR_INVALID_ARGUMENT,
                           "filters: parse error: filter is not UTF-8: invalid argument");
        int r = parse_expression(&p, f, &f->expressions[f->n++]);
        if (r < 0)
            return r;
    }
    *ret = TAKE(f);
    return 0;
}

static bool selector_holds(const struct selector *s, filter_field_fn field, const void *object)
{
    const char *value = field(object, (const char *const *)s->path, s->n_path);

    switch (s->op) {
    case OP_PRESENT:
        return value;
    case OP_EQUAL:
        return value && strcmp(value, s->value) == 0;
    case OP_NOT_EQUAL:
        return strcmp(str_or_empty(value), s->value) != 0;
    case OP_MATCHES:
        return pattern_matches(s->pattern, str_or_empty(value));
    }
    return false;
}

bool filter_matches(const struct filter *f, filter_field_fn field, const void *object)
{
    if (f->all)
        return true;
    for (size_t i = 0; i < f->n; i++) {
        const struct expression *x = &f->expressions[i];
        size_t j = 0;
        while (j < x->n && selector_holds(&x->selectors[j], field, object))
            j++;
        if (j == x->n)
            return true;
    }
    return false;
}

bool filter_is_all(const struct filter *f)
{
    return f->all;
}

const char *filter_join_path(const char *const *path, size_t from, size_t n, char *out, size_t size)
{
    size_t len = 0;

    if (size == 0)
        return "";
    out[0] = '\0';
    for (size_t i = from; i < n && len + 1 < size; i++) {
        int r = snprintf(out + len, size - len, "%s%s", i > from ? "." : "", path[i]);
        if (r < 0)
            break;
        len += (size_t)r;
    }
    return out;
}
