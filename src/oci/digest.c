/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/digest.h"

#include "base/str.h"

#define LOWER_HEX "0123456789abcdef"
#define LOWER_ALNUM "abcdefghijklmnopqrstuvwxyz0123456789"
#define ENCODED LOWER_ALNUM "ABCDEFGHIJKLMNOPQRSTUVWXYZ=_-"

static const struct {
    const char *name;
    size_t bytes;
} algorithms[] = {
    [DIGEST_SHA256] = {"sha256", 32},
    [DIGEST_SHA384] = {"sha384", 48},
    [DIGEST_SHA512] = {"sha512", 64},
};

static int find_algorithm(const char *s, size_t n)
{
    for (size_t i = 0; i < ARRAY_SIZE(algorithms); i++)
        if (strlen(algorithms[i].name) == n && !memcmp(algorithms[i].name, s, n))
            return (int)i;
    return -EINVAL;
}

/* Runs of lower-case letters and digits, single separators between them. */
static bool is_algorithm_name(const char *s, size_t n)
{
    for (size_t i = 0;;) {
        size_t run = strspn(s + i, LOWER_ALNUM);
        if (run == 0)
            return false;
        i += run;
        if (i == n)
            return true;
        if (!strchr(".+_-", s[i]))
            return false;
        i++;
    }
}

const char *digest_problem(const char *s)
{
    static const char bad_format[] = "invalid checksum digest format";

    const char *colon = s ? strchr(s, ':') : NULL;
    if (!colon || colon == s || !colon[1])
        return bad_format;
    const char *encoded = colon + 1;
    size_t n = strlen(encoded);

    int a = find_algorithm(s, (size_t)(colon - s));
    if (a < 0) {
        if (!is_algorithm_name(s, (size_t)(colon - s)) || strspn(encoded, ENCODED) != n)
            return bad_format;
        return "unsupported digest algorithm";
    }
    if (n != 2 * algorithms[a].bytes)
        return "invalid checksum digest length";
    if (strspn(encoded, LOWER_HEX) != n)
        return bad_format;
    return NULL;
}

int digest_validate(const char *s, struct err *e)
{
    if (!digest_problem(s))
        return 0;
    _free_ char *quoted = str_quote(str_or_empty(s));
    if (!quoted)
        return err_oom(e);
    return err_set(e, ERR_INVALID_ARGUMENT, "%s failed validation", quoted);
}

int digest_split(const char *s, enum digest_algorithm *ret_algorithm, const char **ret_hex)
{
    if (digest_problem(s))
        return -EINVAL;
    const char *colon = strchr(s, ':');
    if (ret_algorithm)
        *ret_algorithm = (enum digest_algorithm)find_algorithm(s, (size_t)(colon - s));
    if (ret_hex)
        *ret_hex = colon + 1;
    return 0;
}

const char *digest_algorithm_name(enum digest_algorithm a)
{
    return algorithms[a].name;
}

size_t digest_algorithm_bytes(enum digest_algorithm a)
{
    return algorithms[a].bytes;
}

void digest_format(enum digest_algorithm a, const uint8_t *hash, char out[DIGEST_STR_MAX])
{
    size_t n = strlen(algorithms[a].name);
    memcpy(out, algorithms[a].name, n);
    out[n] = ':';
    str_hex(hash, algorithms[a].bytes, out + n + 1);
}
