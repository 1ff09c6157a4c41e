/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/links.h"

#include <stdio.h>

#define KEY_MAX 48

void link_forget_waiting(struct link *link)
{
    while (link->waiting) {
        struct link_name *name = link->waiting;
        link->waiting = name->next;
        change_dir_unref(name->dir);
        free(name);
    }
    link->last = &link->waiting;
}

int link_wait(struct link *link, struct change_dir *dir, const char *path)
{
    size_t n = strlen(path) + 1;
    struct link_name *name = malloc(sizeof(*name) + n);

    if (!name)
        return -ENOMEM;
    name->next = NULL;
    name->dir = change_dir_ref(dir);
    memcpy(name->path, path, n);
    *link->last = name;
    link->last = &name->next;
    return 0;
}

static void link_free(struct link *link)
{
    link_forget_waiting(link);
    free(link->source);
    free(link);
}

void links_done(struct links *l)
{
    MAP_FOREACH (entry, &l->by_inode)
        link_free(entry->value);
    map_done(&l->by_inode);
}

static void format_key(const struct stat *st, char out[KEY_MAX])
{
    snprintf(out, KEY_MAX, "%llx:%llx", (unsigned long long)st->st_dev,
             (unsigned long long)st->st_ino);
}

int links_see(struct links *l, const struct stat *st, struct link **ret)
{
    char key[KEY_MAX];
    struct link *link;

    format_key(st, key);
    link = map_get(&l->by_inode, key);
    if (!link) {
        link = calloc(1, sizeof(*link));
        if (!link || map_add(&l->by_inode, key, link) < 0) {
            free(link);
            return -ENOMEM;
        }
        link->left = st->st_nlink;
        link->last = &link->waiting;
    }
    if (link->left > 0)
        link->left--;
    *ret = link;
    return 0;
}

void links_settle(struct links *l, const struct stat *st, struct link *link)
{
    char key[KEY_MAX];

    if (link->left > 0)
        return;
    format_key(st, key);
    map_remove(&l->by_inode, key);
    link_free(link);
}
