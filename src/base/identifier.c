/* SPDX-License-Identifier: Apache-2.0 */
#include "base/identifier.h"

#include "base/str.h"

#define IDENTIFIER_PATTERN "^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$"
/* Bytes of a bad name that are shown, so that the sentence keeps its end. */
#define SHOWN_MAX 256
/* As containerd cuts the key of a label that is too long. */
#define LABEL_SHOWN_MAX 64

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* Runs of letters and digits with single separators between them. */
static bool matches_pattern(const char *s)
{
    for (;;) {
        if (!is_alnum(*s))
            return false;
        while (is_alnum(*s))
            s++;
        if (!*s)
            return true;
        if (*s != '.' && *s != '_' && *s != '-')
            return false;
        s++;
    }
}

bool identifier_is_valid(const char *s)
{
    return s && strnlen(s, IDENTIFIER_MAX + 1) <= IDENTIFIER_MAX && matches_pattern(s);
}

/* At most max bytes of s, cut at a whole character. */
static char *cut(const char *s, size_t max)
{
    size_t n = strnlen(s, max + 1);

    if (n > max)
        for (n = max; n > 0 && ((uint8_t)s[n] & 0xc0) == 0x80;)
            n--;
    return strndup(s, n);
}

int identifier_validate(const char *s, struct err *e)
{
    if (str_empty(s))
        return err_set(e, ERR_INVALID_ARGUMENT, "identifier must not be empty: invalid argument");
    if (identifier_is_valid(s))
        return 0;

    size_t n = strlen(s);
    _free_ char *shown = cut(s, SHOWN_MAX);
    _free_ char *quoted = shown ? str_quote(shown) : NULL;
    const char *dots = n > SHOWN_MAX ? "..." : "";

    if (!quoted)
        return err_oom(e);
    if (n > IDENTIFIER_MAX)
        return err_set(
            e, ERR_INVALID_ARGUMENT,
            "identifier %s%s greater than maximum length (%d characters): invalid argument", quoted,
            dots, IDENTIFIER_MAX);
    return err_set(e, ERR_INVALID_ARGUMENT,
                   "identifier %s must match " IDENTIFIER_PATTERN ": invalid argument", quoted);
}

int label_validate(const char *key, const char *value, struct err *e)
{
    size_t n = strlen(key) + strlen(value);

    if (n <= LABEL_MAX)
        return 0;

    _free_ char *shown = cut(key, LABEL_SHOWN_MAX);
    if (!shown)
        return err_oom(e);
    return err_set(e, ERR_INVALID_ARGUMENT,
                   "label key and value length (%zu bytes) greater than maximum size (%d bytes), "
                   "key: %s: invalid argument",
                   n, LABEL_MAX, shown);
}
