/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/user.h"

#include "base/fs.h"
#include "base/str.h"

#define FIELDS_MAX 4

/* One line of passwd(5) or group(5), cut at the first FIELDS_MAX colons. */
struct entry {
    const char *field[FIELDS_MAX];
    size_t len[FIELDS_MAX];
};

void user_done(struct user *u)
{
    free(u->gids);
    *u = (struct user){};
}

/* The next line with at least FIELDS_MAX fields; NULL at the end. */
static const char *next_entry(const char *text, struct entry *ret)
{
    while (text && *text) {
        const char *line = text;
        size_t n = strcspn(line, "\n"), i = 0, at = 0;

        text = line[n] ? line + n + 1 : line + n;
        if (line[0] == '#' || n > USER_LINE_MAX)
            continue;
        for (i = 0; i < FIELDS_MAX && at <= n; i++) {
            const char *colon = memchr(line + at, ':', n - at);
            ret->field[i] = line + at;
            ret->len[i] = colon ? (size_t)(colon - line) - at : n - at;
            at += ret->len[i] + 1;
        }
        if (i == FIELDS_MAX)
            return text;
    }
    return NULL;
}

static bool field_is(const struct entry *entry, size_t i, const char *s, size_t n)
{
    return entry->len[i] == n && memcmp(entry->field[i], s, n) == 0;
}

static bool is_digits(const char *s)
{
    return *s && strspn(s, "0123456789") == strlen(s);
}

/* False for what is no number in range. */
static bool number_of(const char *s, size_t n, uint32_t *ret)
{
    uint64_t value = 0;

    if (n == 0 || n > 10)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(s[i] - '0');
    }
    if (value > USER_ID_MAX)
        return false;
    *ret = (uint32_t)value;
    return true;
}

static int parse_number(const char *what, const char *s, uint32_t *ret, struct err *e)
{
    while (s[0] == '0' && s[1])
        s++;
    if (number_of(s, strlen(s), ret))
        return 0;
    return err_set(e, ERR_INVALID_ARGUMENT, "%s id %s is out of range: 0 to %d: invalid argument",
                   what, s, USER_ID_MAX);
}

static int add_group(struct user *u, uint32_t gid, struct err *e)
{
    size_t at = 0;
    uint32_t *gids;

    while (at < u->n_gids && u->gids[at] < gid)
        at++;
    if (at < u->n_gids && u->gids[at] == gid)
        return 0;
    if (u->n_gids >= USER_GROUPS_MAX)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "the user is in more than %d groups: invalid argument", USER_GROUPS_MAX);
    gids = reallocarray(u->gids, u->n_gids + 1, sizeof(*gids));
    if (!gids)
        return err_oom(e);
    memmove(gids + at + 1, gids + at, (u->n_gids - at) * sizeof(*gids));
    gids[at] = gid;
    u->gids = gids;
    u->n_gids++;
    return 0;
}

static bool member_of(const struct entry *group, const char *name, size_t name_len)
{
    const char *at = group->field[3];
    size_t left = group->len[3];

    while (left >= name_len && name_len > 0) {
        const char *comma = memchr(at, ',', left);
        size_t n = comma ? (size_t)(comma - at) : left;
        if (n == name_len && memcmp(at, name, n) == 0)
            return true;
        if (!comma)
            break;
        left -= n + 1;
        at += n + 1;
    }
    return false;
}

static int add_groups_of(struct user *u, const char *name, size_t name_len, const char *group,
                         struct err *e)
{
    struct entry g;
    uint32_t gid;
    int r = 0;

    while (r == 0 && (group = next_entry(group, &g))) {
        if (number_of(g.field[2], g.len[2], &gid) && member_of(&g, name, name_len))
            r = add_group(u, gid, e);
    }
    return r;
}

static int resolve_group(const char *name, const char *group, uint32_t *ret, struct err *e)
{
    struct entry g;

    if (is_digits(name))
        return parse_number("group", name, ret, e);
    while ((group = next_entry(group, &g))) {
        if (field_is(&g, 0, name, strlen(name)) && number_of(g.field[2], g.len[2], ret))
            return 0;
    }
    return err_set(e, ERR_NOT_FOUND, "group \"%s\" is not in the image's /etc/group: not found",
                   name);
}

/* The entry of a name, or of a uid when name is NULL. */
static bool find_user(const char *passwd, const char *name, uint32_t uid, struct entry *ret,
                      struct user *u)
{
    while ((passwd = next_entry(passwd, ret))) {
        if (!number_of(ret->field[2], ret->len[2], &u->uid) ||
            !number_of(ret->field[3], ret->len[3], &u->gid))
            continue;
        if (name ? field_is(ret, 0, name, strlen(name)) : u->uid == uid)
            return true;
    }
    return false;
}

int user_resolve_text(const char *user, const char *passwd, const char *group, struct user *ret,
                      struct err *e)
{
    _cleanup_(user_done) struct user u = {};
    const char *colon = strchr(user, ':');
    _free_ char *name = colon ? strndup(user, (size_t)(colon - user)) : strdup(user);
    struct entry entry = {};
    bool found;
    int r = 0;

    if (!name)
        return err_oom(e);
    if (!*name || is_digits(name)) {
        uint32_t uid = 0;

        if (*name)
            r = parse_number("user", name, &uid, e);
        if (r < 0)
            return r;
        found = find_user(passwd, NULL, uid, &entry, &u);
        u.uid = uid;
        if (!found)
            u.gid = 0;
    } else {
        found = find_user(passwd, name, 0, &entry, &u);
        if (!found)
            return err_set(e, ERR_NOT_FOUND,
                           "user \"%s\" is not in the image's /etc/passwd: not found", name);
    }
    if (colon)
        r = resolve_group(colon + 1, group, &u.gid, e);
    else if (found)
        r = add_groups_of(&u, entry.field[0], entry.len[0], group, e);
    else if (u.uid == 0)
        r = add_groups_of(&u, "root", 4, group, e);
    if (r == 0)
        r = add_group(&u, u.gid, e);
    if (r < 0)
        return r;
    *ret = u;
    u = (struct user){};
    return 0;
}

/* *ret stays NULL when there is no such file. */
static int read_database(const struct layers *l, const char *path, char **ret, struct err *e)
{
    _close_ int fd = -EBADF;
    _free_ char *text = NULL;
    ssize_t n;
    int r = layers_open_file(l, path, &fd);

    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return err_errno(e, r, "open /%s of the image", path);
    text = malloc(USER_FILE_MAX + 2);
    if (!text)
        return err_oom(e);
    n = fs_read_all(fd, text, USER_FILE_MAX + 1);
    if (n < 0)
        return err_errno(e, (int)n, "read /%s of the image", path);
    if (n > (ssize_t)USER_FILE_MAX)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "/%s of the image is larger than %u bytes: invalid argument", path,
                       USER_FILE_MAX);
    text[n] = '\0';
    *ret = TAKE(text);
    return 0;
}

int user_resolve(const char *user, const struct layers *l, struct user *ret, struct err *e)
{
    _free_ char *passwd = NULL, *group = NULL;
    int r = 0;

    if (l)
        r = read_database(l, "etc/passwd", &passwd, e);
    if (l && r == 0)
        r = read_database(l, "etc/group", &group, e);
    if (r < 0)
        return r;
    return user_resolve_text(user, passwd, group, ret, e);
}
