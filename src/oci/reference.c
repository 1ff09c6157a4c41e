/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parsing goes from the right: what follows '@' is the digest, what follows the last ':' behind the
 * last '/' is the tag, the rest is the name. Each part then has to be its grammar, whole.
 */
#include "oci/reference.h"

#include <ctype.h>

#include "base/str.h"
#include "oci/digest.h"

#define DEFAULT_DOMAIN "docker.io"
#define LEGACY_DOMAIN "index.docker.io"
#define DEFAULT_PREFIX "library/"
#define DEFAULT_TAG "latest"
#define STORABLE_MAX 4096

#define LOWER "abcdefghijklmnopqrstuvwxyz0123456789"
#define ALNUM LOWER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

void reference_done(struct reference *r)
{
    free(r->domain);
    free(r->path);
    free(r->tag);
    free(r->digest);
    *r = (struct reference){0};
}

/* [a-z0-9]+ parts joined by one of '.', '_', "__" or any number of '-'. */
static bool is_path_component(const char *s, size_t n)
{
    size_t i = 0;
    for (;;) {
        size_t run = strspn(s + i, LOWER);
        if (run == 0 || i + run > n)
            return false;
        i += run;
        if (i == n)
            return true;
        size_t dashes = strspn(s + i, "-");
        if (dashes > 0)
            i += dashes;
        else if (s[i] == '.')
            i++;
        else if (s[i] == '_')
            i += s[i + 1] == '_' ? 2 : 1;
        else
            return false;
        if (i >= n)
            return false;
    }
}

static bool is_path(const char *s)
{
    for (;;) {
        size_t n = strcspn(s, "/");
        if (!is_path_component(s, n))
            return false;
        if (!s[n])
            return true;
        s += n + 1;
    }
}

static bool is_port(const char *s)
{
    size_t n = strspn(s, "0123456789");
    return n > 0 && !s[n];
}

/* Labels of letters, digits and inner '-', joined by '.', or an IPv6 address in brackets; then
 * perhaps a port. */
static bool is_domain(const char *s)
{
    if (*s == '[') {
        size_t n = strspn(s + 1, "0123456789abcdefABCDEF:");
        if (n == 0 || s[n + 1] != ']')
            return false;
        s += n + 2;
        return !*s || (*s == ':' && is_port(s + 1));
    }
    for (;;) {
        size_t n = strspn(s, ALNUM "-");
        if (n == 0 || s[0] == '-' || s[n - 1] == '-')
            return false;
        s += n;
        if (!*s)
            return true;
        if (*s == ':')
            return is_port(s + 1);
        if (*s != '.')
            return false;
        s++;
    }
}

static bool is_tag(const char *s)
{
    size_t n = strspn(s, ALNUM "_.-");
    return n > 0 && n <= REFERENCE_TAG_MAX && !s[n] && s[0] != '.' && s[0] != '-';
}

static bool has_upper(const char *s)
{
    for (; *s; s++)
        if (*s >= 'A' && *s <= 'Z')
            return true;
    return false;
}

static int invalid(const char *s, const char *why, struct err *e)
{
    _free_ char *quoted = str_quote(s);
    if (!quoted)
        return err_oom(e);
    return err_set(e, ERR_INVALID_ARGUMENT, "invalid reference %s: %s", quoted, why);
}

/* Whether the n bytes before the first '/' name a host. */
static bool looks_like_domain(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (s[i] == '.' || s[i] == ':' || (s[i] >= 'A' && s[i] <= 'Z'))
            return true;
    return n == strlen("localhost") && !memcmp(s, "localhost", n);
}

/* Splits a name (no tag, no digest) into domain and path, completing both. */
static int split_name(const char *name, struct reference *r)
{
    const char *slash = strchr(name, '/');

    if (slash && looks_like_domain(name, (size_t)(slash - name))) {
        r->domain = strndup(name, (size_t)(slash - name));
        name = slash + 1;
    } else {
        r->domain = strdup(DEFAULT_DOMAIN);
    }
    if (!r->domain)
        return -ENOMEM;
    if (str_eq(r->domain, LEGACY_DOMAIN)) {
        free(r->domain);
        r->domain = strdup(DEFAULT_DOMAIN);
        if (!r->domain)
            return -ENOMEM;
    }
    bool official = str_eq(r->domain, DEFAULT_DOMAIN) && !strchr(name, '/');
    r->path = str_printf("%s%s", official ? DEFAULT_PREFIX : "", name);
    return r->path ? 0 : -ENOMEM;
}

static bool is_bare_hash(const char *s)
{
    return strlen(s) == 64 && strspn(s, "0123456789abcdef") == 64;
}

/* Moves what stands behind the separator into *ret and cuts it off. */
static int cut_at(char *separator, char **ret)
{
    *ret = strdup(separator + 1);
    if (!*ret)
        return -ENOMEM;
    *separator = 0;
    return 0;
}

int reference_parse(const char *s, struct reference *ret, struct err *e)
{
    _cleanup_(reference_done) struct reference made = {0};

    if (!*s)
        return invalid(s, "the name is empty", e);
    if (strlen(s) > REFERENCE_STR_MAX)
        return err_set(e, ERR_INVALID_ARGUMENT, "invalid reference: longer than %d bytes",
                       REFERENCE_STR_MAX);
    if (is_bare_hash(s))
        return invalid(s, "64 hex characters are an image id, not a name", e);

    _free_ char *name = strdup(s);
    if (!name)
        return err_oom(e);
    char *at = strchr(name, '@');
    if (at && cut_at(at, &made.digest) < 0)
        return err_oom(e);
    char *slash = strrchr(name, '/');
    char *colon = strrchr(slash ? slash : name, ':');
    if (colon && cut_at(colon, &made.tag) < 0)
        return err_oom(e);

    if (made.digest && !digest_is_valid(made.digest))
        return invalid(s, digest_problem(made.digest), e);
    if (made.tag && !is_tag(made.tag))
        return invalid(s, "a tag is letters, digits, '_', '.' and '-', at most 128 of them", e);
    if (split_name(name, &made) < 0)
        return err_oom(e);
    if (!is_domain(made.domain))
        return invalid(s, "the part before the first '/' is no host name", e);
    if (has_upper(made.path))
        return invalid(s, "repository name must be lowercase", e);
    if (!is_path(made.path))
        return invalid(s, "invalid reference format", e);
    if (strlen(made.domain) + 1 + strlen(made.path) > REFERENCE_NAME_MAX)
        return invalid(s, "repository name must not be more than 255 characters", e);

    *ret = made;
    made = (struct reference){0};
    return 0;
}

static char *format_with(const char *domain, const char *path, const struct reference *r)
{
    return str_printf("%s%s%s%s%s%s%s", domain, *domain ? "/" : "", path, r->tag ? ":" : "",
                      str_or_empty(r->tag), r->digest ? "@" : "", str_or_empty(r->digest));
}

char *reference_format(const struct reference *r)
{
    return format_with(r->domain, r->path, r);
}

char *reference_format_familiar(const struct reference *r)
{
    if (!str_eq(r->domain, DEFAULT_DOMAIN))
        return reference_format(r);
    const char *rest = str_after_prefix(r->path, DEFAULT_PREFIX);
    /* "library/a/b" is not official, and "host.example/a" would not be Docker's: without what is
     * in front they would read back as other names. */
    if (rest && !strchr(rest, '/'))
        return format_with("", rest, r);
    const char *slash = strchr(r->path, '/');
    if (slash && looks_like_domain(r->path, (size_t)(slash - r->path)))
        return reference_format(r);
    return format_with("", r->path, r);
}

int reference_normalise(const char *s, char **ret, struct err *e)
{
    _cleanup_(reference_done) struct reference r = {0};

    int err = reference_parse(s, &r, e);
    if (err < 0)
        return err;
    if (!r.tag && !r.digest) {
        r.tag = strdup(DEFAULT_TAG);
        if (!r.tag)
            return err_oom(e);
    }
    char *full = reference_format(&r);
    if (!full)
        return err_oom(e);
    *ret = full;
    return 0;
}

char *reference_familiar(const char *s)
{
    _cleanup_(reference_done) struct reference r = {0};

    if (reference_parse(s, &r, NULL) < 0)
        return strdup(s);
    return reference_format_familiar(&r);
}

bool reference_name_is_storable(const char *s)
{
    size_t n = s ? strlen(s) : 0;
    if (n == 0 || n > STORABLE_MAX || !str_is_utf8(s, n))
        return false;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
            return false;
    return true;
}
