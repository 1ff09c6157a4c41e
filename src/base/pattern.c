/* SPDX-License-Identifier: Apache-2.0 */
#include "base/pattern.h"

#include <regex.h>

#include "base/buf.h"
#include "base/str.h"

#define OUT_MAX (512 * 1024)
#define REPEAT_MAX 1000 /* RE2's */
#define AT_WILL 4       /* see PATTERN_MAX_NODES */

struct pattern {
    regex_t regex;
};

/* The characters of a class: ASCII one by one, the others all together. */
struct class
{
    bool ascii[128];
    bool others;
};

/* How many nodes a group has so far, so that repetitions cannot make a huge automaton. */
struct group {
    size_t nodes; /* without the last atom */
    size_t last;  /* of the last atom; 0: nothing that could be repeated */
};

struct translation {
    const char *s; /* what is left */
    struct buf out;
    struct group groups[PATTERN_MAX_DEPTH + 1];
    size_t depth;
    bool ignore_case;
    bool oom;
    const char *why;
};

static bool refuse(struct translation *t, const char *why)
{
    t->why = why;
    return false;
}

static bool emit(struct translation *t, const char *s, size_t n)
{
    int r = buf_append(&t->out, s, n);

    if (r == -ENOMEM)
        t->oom = true;
    return r < 0 ? refuse(t, "expression too large") : true;
}

static bool emit_str(struct translation *t, const char *s)
{
    return emit(t, s, strlen(s));
}

static bool atom_done(struct translation *t, size_t nodes)
{
    struct group *g = &t->groups[t->depth];

    g->nodes += g->last;
    g->last = nodes;
    if (g->nodes + g->last > PATTERN_MAX_NODES)
        return refuse(t, "expression too large");
    return true;
}

/* A character that stands for itself. */
static bool emit_literal(struct translation *t, uint32_t c)
{
    char utf8[6] = "(";

    if (c == 0)
        return refuse(t, "invalid escape sequence");
    if (c < 0x80) {
        char one[2] = {'\\', (char)c};
        bool special = strchr(".[]{}()\\*+?|^$", (int)c) != NULL;
        return emit(t, special ? one : one + 1, special ? 2 : 1) && atom_done(t, 1);
    }
    /* In a group, so that a repetition takes the whole character. */
    size_t n = str_utf8_encode(c, utf8 + 1);
    utf8[n + 1] = ')';
    return emit(t, utf8, n + 2) && atom_done(t, n);
}

static void class_add_range(struct class *k, uint32_t first, uint32_t last)
{
    for (uint32_t c = first; c <= last && c < 128; c++)
        k->ascii[c] = true;
}

static void class_invert(struct class *k)
{
    for (size_t c = 0; c < 128; c++)
        k->ascii[c] = !k->ascii[c];
    k->others = !k->others;
}

static void class_merge(struct class *k, const struct class *other)
{
    for (size_t c = 0; c < 128; c++)
        k->ascii[c] |= other->ascii[c];
    k->others |= other->others;
}

/* \d \w \s and their opposites. */
static bool class_of_letter(char letter, struct class *k)
{
    *k = (struct class){};
    switch (letter | 0x20) {
    case 'd':
        class_add_range(k, '0', '9');
        break;
    case 'w':
        class_add_range(k, '0', '9');
        class_add_range(k, 'A', 'Z');
        class_add_range(k, 'a', 'z');
        class_add_range(k, '_', '_');
        break;
    case 's':
        class_add_range(k, '\t', '\n');
        class_add_range(k, '\f', '\r');
        class_add_range(k, ' ', ' ');
        break;
    default:
        return false;
    }
    if (!(letter & 0x20))
        class_invert(k);
    return true;
}

/* "alpha" of [:alpha:]. */
static bool class_of_name(const char *name, size_t n, struct class *k)
{
    static const struct {
        const char *name, *ranges; /* pairs of first and last */
    } classes[] = {
        {"alnum", "09AZaz"},
        {"alpha", "AZaz"},
        {"ascii", "\1\177"},
        {"blank", "\t\t  "},
        {"cntrl", "\1\37\177\177"},
        {"digit", "09"},
        {"graph", "!~"},
        {"lower", "az"},
        {"print", " ~"},
        {"punct", "!/:@[`{~"},
        {"space", "\t\r  "},
        {"upper", "AZ"},
        {"word", "09AZaz__"},
        {"xdigit", "09AFaf"},
    };

    *k = (struct class){};
    for (size_t i = 0; i < ARRAY_SIZE(classes); i++) {
        if (strlen(classes[i].name) != n || memcmp(classes[i].name, name, n) != 0)
            continue;
        for (const char *p = classes[i].ranges; *p; p += 2)
            class_add_range(k, (uint32_t)p[0], (uint32_t)p[1]);
        return true;
    }
    return false;
}

/* Writes a bracket expression, in which backslash means nothing and order decides. */
static bool emit_class(struct translation *t, const struct class *k)
{
    char text[136];
    size_t n = 0;
    bool negate = k->others;

    text[n++] = '[';
    if (negate)
        text[n++] = '^';
    size_t head = n;
    if (k->ascii[']'] != negate)
        text[n++] = ']';
    for (int c = 1; c < 128; c++)
        if (k->ascii[c] != negate && !strchr("]^-[", c))
            text[n++] = (char)c;
    /* Behind '[' come only these two or the end, which make no [: of it. */
    if (k->ascii['['] != negate)
        text[n++] = '[';
    bool dash = k->ascii['-'] != negate, caret = k->ascii['^'] != negate;
    if (caret && n == head && !negate) {
        if (!dash)
            return emit_str(t, "\\^") && atom_done(t, 1);
        text[n++] = '-';
        dash = false;
    }
    if (caret)
        text[n++] = '^';
    if (dash)
        text[n++] = '-';
    if (n == head)
        return negate ? emit_str(t, ".") && atom_done(t, 1) : refuse(t, "empty character class");
    text[n++] = ']';
    return emit(t, text, n) && atom_done(t, 1);
}

/* \x41 or \x{1F600}, behind the x. */
static bool take_hex(struct translation *t, uint32_t *ret)
{
    bool braces = *t->s == '{';
    uint32_t c = 0;
    int digits = 0;

    t->s += braces;
    for (; digits < (braces ? 8 : 2) && str_digit(*t->s, 16) >= 0; digits++, t->s++)
        c = c << 4 | (uint32_t)str_digit(*t->s, 16);
    if (digits < (braces ? 1 : 2) || (braces && *t->s != '}') || c > 0x10ffff)
        return refuse(t, "invalid escape sequence");
    t->s += braces;
    *ret = c;
    return true;
}

/* A backslash that stands for one character, behind it. */
static bool take_escape(struct translation *t, uint32_t *ret)
{
    static const char letters[] = "aftnrv", values[] = "\a\f\t\n\r\v";
    char c = *t->s;
    const char *p;

    if (!c)
        return refuse(t, "trailing backslash at end of expression");
    t->s++;
    if (c >= '0' && c <= '7' && (c == '0' || str_digit(*t->s, 8) >= 0)) {
        uint32_t v = (uint32_t)(c - '0');
        for (int i = 0; i < 2 && str_digit(*t->s, 8) >= 0; i++, t->s++)
            v = v << 3 | (uint32_t)str_digit(*t->s, 8);
        *ret = v;
        return true;
    }
    if (c == 'x')
        return take_hex(t, ret);
    if ((p = strchr(letters, c))) {
        *ret = (uint32_t)values[p - letters];
        return true;
    }
    if ((uint8_t)c >= 0x80 || str_digit(c, 10) >= 0 || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z'))
        return refuse(t, "invalid escape sequence");
    *ret = (uint32_t)c;
    return true;
}

/* One end of a range. */
static bool take_class_char(struct translation *t, uint32_t *ret)
{
    if (*t->s == '\\') {
        t->s++;
        return take_escape(t, ret);
    }
    int len = str_utf8_decode(t->s, strlen(t->s), ret);
    if (len < 0)
        return refuse(t, "invalid UTF-8");
    t->s += len;
    return true;
}

/* One member of a class: a set by name or letter, a character or a range. */
static bool take_class_item(struct translation *t, struct class *k)
{
    struct class set;
    uint32_t first, last;

    if (t->s[0] == '[' && t->s[1] == ':') {
        const char *name = t->s + 2, *end = strstr(name, ":]");
        if (end) {
            bool inverted = *name == '^';
            name += inverted;
            if (!class_of_name(name, (size_t)(end - name), &set))
                return refuse(t, "invalid character class range");
            if (inverted)
                class_invert(&set);
            class_merge(k, &set);
            t->s = end + 2;
            return true;
        }
    }
    if (t->s[0] == '\\' && class_of_letter(t->s[1], &set)) {
        class_merge(k, &set);
        t->s += 2;
        return true;
    }
    if (!take_class_char(t, &first))
        return false;
    last = first;
    if (t->s[0] == '-' && t->s[1] && t->s[1] != ']') {
        t->s++;
        if (!take_class_char(t, &last))
            return false;
        if (last < first)
            return refuse(t, "invalid character class range");
    }
    if (last >= 0x80)
        return refuse(t, "characters beyond ASCII are not supported in classes");
    class_add_range(k, first, last);
    return true;
}

static bool translate_class(struct translation *t)
{
    struct class k = {};
    bool negate = *t->s == '^';

    t->s += negate;
    for (bool first = true; first || *t->s != ']'; first = false) {
        if (!*t->s)
            return refuse(t, "missing closing ]");
        if (!take_class_item(t, &k))
            return false;
    }
    t->s++;
    if (negate)
        class_invert(&k);
    return emit_class(t, &k);
}

static bool translate_escape(struct translation *t)
{
    static const char *const anchors[] = {"b\\b", "B\\B", "A\\`", "z\\'"};
    struct class k;
    uint32_t c;

    if (class_of_letter(*t->s, &k)) {
        t->s++;
        return emit_class(t, &k);
    }
    for (size_t i = 0; i < ARRAY_SIZE(anchors); i++) {
        if (*t->s == anchors[i][0]) {
            t->s++;
            return emit_str(t, anchors[i] + 1) && atom_done(t, 1);
        }
    }
    if (*t->s == 'Q') {
        const char *end = strstr(++t->s, "\\E");
        const char *stop = end ? end : t->s + strlen(t->s);
        while (t->s < stop) {
            int len = str_utf8_decode(t->s, (size_t)(stop - t->s), &c);
            if (len < 0)
                return refuse(t, "invalid UTF-8");
            t->s += len;
            if (!emit_literal(t, c))
                return false;
        }
        t->s += end ? 2 : 0;
        return true;
    }
    return take_escape(t, &c) && emit_literal(t, c);
}

static bool open_group(struct translation *t)
{
    if (*t->s == '?') {
        const char *name = str_after_prefix(t->s, "?P<");
        if (!name)
            name = str_after_prefix(t->s, "?<");
        if (t->s[1] == ':') {
            t->s += 2;
        } else if (name) {
            size_t n =
                strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_");
            if (n == 0 || name[n] != '>')
                return refuse(t, "invalid named capture");
            t->s = name + n + 1;
        } else {
            return refuse(t, "invalid or unsupported Perl syntax");
        }
    }
    if (t->depth == PATTERN_MAX_DEPTH)
        return refuse(t, "expression nests too deeply");
    t->groups[++t->depth] = (struct group){};
    return emit_str(t, "(");
}

static bool close_group(struct translation *t)
{
    if (t->depth == 0)
        return refuse(t, "unexpected )");
    struct group *g = &t->groups[t->depth--];
    return emit_str(t, ")") && atom_done(t, g->nodes + g->last + 1);
}

/* {2}, {2,} or {2,3} at s (behind the brace): how long it is with the closing brace, 0 if it is
 * none, and how many times its operand it counts as. */
static size_t repeat_len(const char *s, unsigned *ret_times, bool *ret_ok)
{
    unsigned number[2] = {0, 0};
    size_t n = 0;
    int i = 0;

    for (;; i++) {
        size_t digits = 0;
        for (; str_digit(s[n], 10) >= 0; n++, digits++)
            number[i] = MIN_OF(number[i] * 10 + (unsigned)str_digit(s[n], 10), REPEAT_MAX + 1u);
        if (digits == 0 && (i == 0 || s[n] != '}'))
            return 0;
        if (digits == 0)
            number[1] = number[0];
        if (s[n] == '}')
            break;
        if (s[n] != ',' || i == 1)
            return 0;
        n++;
    }
    if (i == 0)
        number[1] = number[0];
    *ret_ok = number[0] <= number[1] && number[1] <= REPEAT_MAX;
    bool exact = s[n - 1] != ',' && number[0] == number[1];
    *ret_times = MAX_OF(number[1], 1u) * (exact ? 1 : AT_WILL);
    return n + 1;
}

/* A repetition operator of n bytes, which counts as `times` times its operand. */
static bool translate_repeat(struct translation *t, const char *op, size_t n, unsigned times)
{
    struct group *g = &t->groups[t->depth];

    if (g->last == 0)
        return refuse(t, "missing argument to repetition operator");
    size_t nodes = g->last * times;
    if (g->nodes + nodes > PATTERN_MAX_NODES)
        return refuse(t, "expression too large");
    /* A second operator on the same atom is refused, as RE2 does. */
    g->nodes += nodes;
    g->last = 0;
    if (*t->s == '?')
        t->s++; /* reluctance changes what is captured, not whether something is found */
    return emit(t, op, n);
}

static bool translate_one(struct translation *t)
{
    const char *start = t->s;
    unsigned times;
    uint32_t c;
    bool ok;

    int len = str_utf8_decode(start, strlen(start), &c);
    if (len < 0)
        return refuse(t, "invalid UTF-8");
    t->s += len;
    switch (c) {
    case '\\':
        return translate_escape(t);
    case '[':
        return translate_class(t);
    case '(':
        return open_group(t);
    case ')':
        return close_group(t);
    case '.':
        return emit_str(t, "[^\n]") && atom_done(t, 1);
    case '^':
    case '$':
        return emit(t, start, 1) && atom_done(t, 1);
    case '|': {
        bool fine = emit(t, "|", 1) && atom_done(t, 1);
        t->groups[t->depth].nodes += 1;
        t->groups[t->depth].last = 0;
        return fine;
    }
    case '*':
    case '+':
    case '?':
        return translate_repeat(t, start, 1, AT_WILL);
    case '{': {
        size_t n = repeat_len(t->s, &times, &ok);
        if (n == 0)
            return emit_literal(t, c);
        if (!ok)
            return refuse(t, "invalid repeat count");
        t->s += n;
        return translate_repeat(t, start, n + 1, times);
    }
    default:
        return emit_literal(t, c);
    }
}

static bool translate(struct translation *t)
{
    const char *rest = str_after_prefix(t->s, "(?i)");

    if (rest) {
        t->ignore_case = true;
        t->s = rest;
    }
    while (*t->s)
        if (!translate_one(t))
            return false;
    return t->depth == 0 || refuse(t, "missing closing )");
}

int pattern_compile(const char *expression, struct pattern **ret, const char **ret_why)
{
    struct translation t = {.s = expression, .out = BUF_INIT(OUT_MAX)};
    _free_ char *posix = NULL;

    if (strnlen(expression, PATTERN_MAX_LEN + 1) > PATTERN_MAX_LEN) {
        *ret_why = "expression too large";
        return -EINVAL;
    }
    bool translated = translate(&t);
    if (translated)
        posix = buf_take_str(&t.out);
    buf_done(&t.out);
    if (t.oom || (translated && !posix))
        return -ENOMEM;
    if (!translated) {
        *ret_why = t.why;
        return -EINVAL;
    }

    struct pattern *p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    int r = regcomp(&p->regex, posix, REG_EXTENDED | REG_NOSUB | (t.ignore_case ? REG_ICASE : 0));
    if (r != 0) {
        free(p);
        *ret_why = "invalid regular expression";
        return r == REG_ESPACE ? -ENOMEM : -EINVAL;
    }
    *ret = p;
    return 0;
}

bool pattern_matches(const struct pattern *p, const char *text)
{
    return regexec(&p->regex, text, 0, NULL, 0) == 0;
}

struct pattern *pattern_free(struct pattern *p)
{
    if (p) {
        regfree(&p->regex);
        free(p);
    }
    return NULL;
}
