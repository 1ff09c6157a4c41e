/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Users and groups of a container: "name", "uid", "name:group", "uid:gid" and so on, resolved by
 * the image's own /etc/passwd and /etc/group, which are read as text that nobody vouches for.
 *
 * Numbers are decimal and 0 to 2^31-1. A word of digits is always a number, never a name, and out
 * of range it is an error: nothing that looks like a number may become another user by wrapping
 * around or by an entry of that name.
 */
#pragma once

#include "oci/layers.h"

#define USER_ID_MAX INT32_MAX
#define USER_FILE_MAX (10u << 20) /* bytes of passwd or group */
#define USER_LINE_MAX 65536
#define USER_GROUPS_MAX 65536

struct user {
    uint32_t uid;
    uint32_t gid;
    uint32_t *gids; /* sorted, always with the primary group */
    size_t n_gids;
};
void user_done(struct user *u);

/*
 * With text of the two files; NULL: there is none. "" is root. Without ":group" the primary group
 * comes from passwd (0 where a uid has no entry) and the others from group.
 * ERR_INVALID_ARGUMENT for bad numbers and broken files, ERR_NOT_FOUND for unknown names.
 */
int user_resolve_text(const char *user, const char *passwd, const char *group, struct user *ret,
                      struct err *e);
/* Reads the files from the layers; l may be NULL: then names cannot be resolved, numbers can. */
int user_resolve(const char *user, const struct layers *l, struct user *ret, struct err *e);
