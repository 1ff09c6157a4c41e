/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/platform.h"

#include <ctype.h>
#include <stdio.h>
#include <sys/utsname.h>

#include "base/str.h"

/* What kernels and build tools call an architecture, and what images call it. */
static const struct {
    const char *alias;
    const char *architecture;
    const char *variant;
} aliases[] = {
    {"x86_64", "amd64", ""},
    {"x86-64", "amd64", ""},
    {"i386", "386", ""},
    {"i486", "386", ""},
    {"i586", "386", ""},
    {"i686", "386", ""},
    {"aarch64", "arm64", ""},
    {"armhf", "arm", "v7"},
    {"armel", "arm", "v6"},
    {"armv8l", "arm", "v8"},
    {"armv7l", "arm", "v7"},
    {"armv6l", "arm", "v6"},
    {"armv5l", "arm", "v5"},
    {"powerpc64le", "ppc64le", ""},
    {"loongarch64", "loong64", ""},
};

static const char *const known_oses[] = {"linux",   "windows", "darwin", "freebsd", "netbsd",
                                         "openbsd", "solaris", "aix",    "plan9",   "illumos"};

static bool is_known_os(const char *s)
{
    for (size_t i = 0; i < ARRAY_SIZE(known_oses); i++)
        if (str_eq(s, known_oses[i]))
            return true;
    return false;
}

/* Lower-cases a field into out. */
static int copy_field(const char *s, char out[PLATFORM_FIELD_MAX])
{
    size_t n = strlen(s);
    if (n >= PLATFORM_FIELD_MAX)
        return -EINVAL;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (!(c < 0x80 && (isalnum(c) || strchr("._-", c))))
            return -EINVAL;
        out[i] = (char)tolower(c);
    }
    out[n] = 0;
    return 0;
}

static void set_field(char out[PLATFORM_FIELD_MAX], const char *s)
{
    snprintf(out, PLATFORM_FIELD_MAX, "%s", s);
}

static void normalise(struct platform *p)
{
    if (str_eq(p->os, "macos"))
        set_field(p->os, "darwin");
    for (size_t i = 0; i < ARRAY_SIZE(aliases); i++) {
        if (!str_eq(p->architecture, aliases[i].alias))
            continue;
        set_field(p->architecture, aliases[i].architecture);
        if (*aliases[i].variant && !*p->variant)
            set_field(p->variant, aliases[i].variant);
        break;
    }

    /* The variant that everybody means is left out, and "7" is "v7". */
    if (str_eq(p->architecture, "arm64")) {
        if (str_eq(p->variant, "8") || str_eq(p->variant, "v8"))
            p->variant[0] = 0;
    } else if (str_eq(p->architecture, "arm")) {
        if (!*p->variant)
            set_field(p->variant, "v7");
        else if (p->variant[0] >= '5' && p->variant[0] <= '8' && !p->variant[1])
            set_field(p->variant, (const char *[]){"v5", "v6", "v7", "v8"}[p->variant[0] - '5']);
    } else if (str_eq(p->architecture, "amd64") && str_eq(p->variant, "v1")) {
        p->variant[0] = 0;
    }
}

int platform_set(struct platform *p, const char *os, const char *architecture, const char *variant)
{
    struct platform made = {0};

    if (copy_field(str_or_empty(os), made.os) < 0 ||
        copy_field(str_or_empty(architecture), made.architecture) < 0 ||
        copy_field(str_or_empty(variant), made.variant) < 0)
        return -EINVAL;
    normalise(&made);
    *p = made;
    return 0;
}

void platform_host(struct platform *ret)
{
    struct utsname u;

    if (uname(&u) < 0 || platform_set(ret, "linux", u.machine, NULL) < 0)
        *ret = (struct platform){.os = "linux"};
}

int platform_parse(const char *s, struct platform *ret, struct err *e)
{
    char copy[3 * PLATFORM_FIELD_MAX];
    char *parts[3] = {NULL};
    size_t n = 0;

    if (strlen(s) >= sizeof(copy))
        return err_set(e, ERR_INVALID_ARGUMENT, "platform specifier is too long");
    snprintf(copy, sizeof(copy), "%s", s);
    for (char *rest = copy; rest;) {
        if (n == ARRAY_SIZE(parts))
            return err_set(e, ERR_INVALID_ARGUMENT,
                           "\"%s\": cannot parse platform specifier: use os/architecture/variant",
                           s);
        parts[n++] = strsep(&rest, "/");
    }

    struct platform host;
    struct platform made;
    platform_host(&host);
    int r;
    if (n == 1) {
        /* One word is an operating system or an architecture. */
        struct platform os = {0};
        r = platform_set(&os, parts[0], NULL, NULL);
        if (r == 0 && is_known_os(os.os))
            r = platform_set(&made, parts[0], host.architecture, host.variant);
        else
            r = platform_set(&made, host.os, parts[0], NULL);
    } else {
        r = platform_set(&made, parts[0], parts[1], parts[2]);
    }
    if (r < 0 || !*made.os || !*made.architecture || (n == 3 && !*parts[2]))
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "\"%s\" is an invalid platform specifier: use os/architecture/variant, as "
                       "in linux/amd64 or linux/arm/v7",
                       s);
    *ret = made;
    return 0;
}

/* The level of a variant: 8 of "v8", 0 for anything else. */
static int variant_level(const char *variant, int fallback)
{
    if (!*variant)
        return fallback;
    if (variant[0] == 'v' && variant[1] >= '1' && variant[1] <= '9' && !variant[2])
        return variant[1] - '0';
    return 0;
}

int platform_match(const struct platform *want, const struct platform *have)
{
    if (!str_eq(want->os, have->os))
        return 0;

    bool same = str_eq(want->architecture, have->architecture);
    if (same && str_eq(want->variant, have->variant))
        return PLATFORM_EXACT;

    int fallback = str_eq(want->architecture, "amd64") ? 1 : 8;
    bool arm64_runs_arm = str_eq(want->architecture, "arm64") && str_eq(have->architecture, "arm");
    if (!same && !arm64_runs_arm)
        return 0;
    if (!str_eq(want->architecture, "amd64") && !str_eq(want->architecture, "arm") &&
        !str_eq(want->architecture, "arm64"))
        return 0;

    int want_level = variant_level(want->variant, fallback);
    int have_level = variant_level(have->variant, fallback);
    if (want_level == 0 || have_level == 0 || have_level > want_level)
        return 0;
    return PLATFORM_EXACT - 10 * (want_level - have_level) - (arm64_runs_arm ? 5 : 0);
}

void platform_format(const struct platform *p, char out[PLATFORM_STR_MAX])
{
    snprintf(out, PLATFORM_STR_MAX, "%s/%s%s%s", p->os, p->architecture, *p->variant ? "/" : "",
             p->variant);
}
