/* SPDX-License-Identifier: Apache-2.0 */
/* Loading the backends; directory numbers, removal and sweep. */
#include "store/snapshotter.h"

#include <fcntl.h>
#include <stdio.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "store/disk.h"

static const struct snapshotter_ops *const backends[] = {&snapshotter_native, &snapshotter_overlay};

struct snapshotters {
    atomic_llong next_dir;
    struct snapshotter *all[ARRAY_SIZE(backends)];
};

static int dir_set_add(struct dir_set *set, int64_t dir)
{
    if (set->n == set->allocated) {
        size_t allocated = set->allocated ? 2 * set->allocated : 16;
        int64_t *grown = reallocarray(set->dirs, allocated, sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        set->dirs = grown;
        set->allocated = allocated;
    }
    set->dirs[set->n++] = dir;
    return 0;
}

static bool dir_set_remove(struct dir_set *set, int64_t dir)
{
    for (size_t i = 0; i < set->n; i++) {
        if (set->dirs[i] == dir) {
            set->dirs[i] = set->dirs[--set->n];
            return true;
        }
    }
    return false;
}

static bool dir_set_has(const struct dir_set *set, int64_t dir)
{
    for (size_t i = 0; i < set->n; i++) {
        if (set->dirs[i] == dir)
            return true;
    }
    return false;
}

int snapshotter_reserve(struct snapshotter *s, int64_t *ret_dir, struct err *e)
{
    int64_t dir;
    int r;

    pthread_mutex_lock(&s->lock);
    dir = atomic_fetch_add(s->next_dir, 1);
    r = dir_set_add(&s->reserved, dir);
    pthread_mutex_unlock(&s->lock);
    if (r < 0)
        return err_oom(e);
    *ret_dir = dir;
    return 0;
}

void snapshotter_release(struct snapshotter *s, int64_t dir)
{
    pthread_mutex_lock(&s->lock);
    dir_set_remove(&s->reserved, dir);
    pthread_mutex_unlock(&s->lock);
}

void snapshotter_doom(struct snapshotter *s, int64_t dir)
{
    pthread_mutex_lock(&s->lock);
    if (dir_set_add(&s->doomed, dir) < 0)
        log_warn("snapshot directory %lld is left to the next sweep: out of memory",
                 (long long)dir);
    pthread_mutex_unlock(&s->lock);
}

void snapshotter_remove_dir(struct snapshotter *s, int64_t dir)
{
    char name[24];
    int r;

    snprintf(name, sizeof(name), "%lld", (long long)dir);
    r = fs_rm_rf(s->dirs_fd, name);
    if (r < 0) /* in use, most likely: the sweep tries again */
        log_warn("remove snapshot directory %s/snapshots/%s: %s", s->root, name, err_strerror(r));
}

void snapshotter_reap(struct snapshotter *s)
{
    int64_t dir;

    for (;;) {
        pthread_mutex_lock(&s->lock);
        dir = s->doomed.n > 0 ? s->doomed.dirs[--s->doomed.n] : 0;
        pthread_mutex_unlock(&s->lock);
        if (dir == 0)
            return;
        snapshotter_remove_dir(s, dir);
    }
}

/* Calls fn for each directory whose name is a number. */
static int list_dirs(struct snapshotter *s, struct dir_set *ret)
{
    struct dirent *entry;
    uint64_t number;
    DIR *dir;
    int r = fs_open_dir(s->dirs_fd, ".", &dir);

    if (r < 0)
        return r;
    while (r >= 0 && (entry = readdir(dir))) {
        if (str_to_u64(entry->d_name, &number) == 0 && number > 0 && number <= INT64_MAX)
            r = dir_set_add(ret, (int64_t)number);
    }
    closedir(dir);
    return r;
}

/* 1, 0, negative. */
static int is_recorded(struct snapshotter *s, int64_t dir, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    sqlite3_stmt *stmt;
    int r;

    r = db_begin(s->db, DB_READ, &txn, e);
    if (r >= 0)
        r = db_stmt(&txn, "SELECT 1 FROM snapshots WHERE dir = ? AND snapshotter = ?", &stmt, e);
    if (r < 0)
        return r;
    sqlite3_bind_int64(stmt, 1, dir);
    db_bind_text(stmt, 2, s->ops->name);
    return db_step(&txn, stmt, e);
}

static bool is_reserved(struct snapshotter *s, int64_t dir)
{
    bool reserved;

    pthread_mutex_lock(&s->lock);
    reserved = dir_set_has(&s->reserved, dir);
    pthread_mutex_unlock(&s->lock);
    return reserved;
}

int snapshotter_sweep(struct snapshotter *s, struct err *e)
{
    struct dir_set dirs = {};
    int r;

    if (s->skipped)
        return 0;
    snapshotter_reap(s);
    r = list_dirs(s, &dirs);
    if (r < 0)
        disk_error(e, r, "list %s/snapshots", s->root);
    for (size_t i = 0; i < dirs.n && r >= 0; i++) {
        if (is_reserved(s, dirs.dirs[i]))
            continue;
        r = is_recorded(s, dirs.dirs[i], e);
        if (r == 0)
            snapshotter_remove_dir(s, dirs.dirs[i]);
    }
    free(dirs.dirs);
    return r < 0 ? r : 0;
}

int snapshotter_stored_usage(struct snapshotter *s, int64_t dir, int64_t *ret_bytes,
                             int64_t *ret_inodes, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    sqlite3_stmt *stmt;
    int r;

    r = db_begin(s->db, DB_READ, &txn, e);
    if (r >= 0)
        r = db_stmt(&txn, "SELECT usage_bytes, usage_inodes FROM snapshots WHERE dir = ?", &stmt,
                    e);
    if (r < 0)
        return r;
    sqlite3_bind_int64(stmt, 1, dir);
    r = db_step(&txn, stmt, e);
    if (r < 0)
        return r;
    *ret_bytes = r > 0 ? sqlite3_column_int64(stmt, 0) : 0;
    *ret_inodes = r > 0 ? sqlite3_column_int64(stmt, 1) : 0;
    return 0;
}

/* Numbers go on behind those of the disk, whatever the database says. */
static int learn_numbers(struct snapshotter *s, struct err *e)
{
    struct dir_set dirs = {};
    int r = list_dirs(s, &dirs);

    for (size_t i = 0; i < dirs.n; i++) {
        if (dirs.dirs[i] >= atomic_load(s->next_dir))
            atomic_store(s->next_dir, dirs.dirs[i] + 1);
    }
    free(dirs.dirs);
    return r < 0 ? disk_error(e, r, "list %s/snapshots", s->root) : 0;
}

static int open_dirs(struct snapshotter *s, struct err *e)
{
    _free_ char *path = str_printf("%s/snapshots", s->root);
    _close_ int root_fd = -EBADF;
    int r;

    if (!path)
        return err_oom(e);
    r = fs_open_private_dir(s->root, 0700, &root_fd);
    if (r >= 0)
        r = fs_open_private_dir(path, 0700, &s->dirs_fd);
    return r < 0 ? disk_error(e, r, "open %s", path) : 0;
}

static int load(struct snapshotter *s, const struct snapshotters_options *options, struct err *e)
{
    struct err why = ERR_INIT;
    int r = open_dirs(s, e);

    if (r >= 0)
        r = learn_numbers(s, e);
    if (r < 0)
        return r;
    r = s->ops->init(s->root, options, &s->state, &why);
    if (r >= 0)
        return 0;
    log_info("snapshotter %s is not available: %s", s->ops->name, why.msg);
    s->skipped = strdup(why.msg);
    return s->skipped ? 0 : err_oom(e);
}

/* What the options say of this backend: its directory, and whether it is to be left alone. */
static int configure(struct snapshotter *s, const char *root,
                     const struct snapshotters_options *options, struct err *e)
{
    bool overlay = s->ops == &snapshotter_overlay;
    const char *own = overlay ? options->overlay_root : options->native_root;
    bool disabled = overlay ? options->overlay_disabled : options->native_disabled;

    s->sync_remove = overlay && options->overlay_sync_remove;
    s->root = str_empty(own) ? str_printf("%s/io.containerd.snapshotter.v1.%s", root, s->ops->name)
                             : strdup(own);
    s->skipped = disabled ? strdup("disabled by the configuration: skip plugin") : NULL;
    return s->root && (s->skipped || !disabled) ? 0 : err_oom(e);
}

int snapshotter_new(const struct snapshotter_ops *ops, const char *root,
                    const struct snapshotters_options *options, struct db *db,
                    atomic_llong *next_dir, struct snapshotter **ret, struct err *e)
{
    struct snapshotter *s = calloc(1, sizeof(*s));
    int r;

    if (!s)
        return err_oom(e);
    pthread_mutex_init(&s->lock, NULL);
    s->ops = ops;
    s->db = db;
    s->next_dir = next_dir;
    s->dirs_fd = -EBADF;
    s->label_kind = str_printf("snapshot/%s", ops->name);
    s->lease_type = str_printf("snapshots/%s", ops->name);
    r = s->label_kind && s->lease_type ? configure(s, root, options, e) : err_oom(e);
    if (r >= 0 && !s->skipped)
        r = load(s, options, e);
    if (r < 0) {
        snapshotter_free(s);
        return r;
    }
    *ret = s;
    return 0;
}

struct snapshotter *snapshotter_free(struct snapshotter *s)
{
    if (!s)
        return NULL;
    if (s->state && s->ops->done)
        s->ops->done(s->state);
    close_fd(&s->dirs_fd);
    pthread_mutex_destroy(&s->lock);
    free(s->reserved.dirs);
    free(s->doomed.dirs);
    free(s->root);
    free(s->skipped);
    free(s->label_kind);
    free(s->lease_type);
    free(s);
    return NULL;
}

/* The highest number that ever was on record. */
static int last_number(struct db *db, int64_t *ret, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    sqlite3_stmt *stmt;
    int r;

    r = db_begin(db, DB_READ, &txn, e);
    if (r >= 0)
        r = db_stmt(&txn, "SELECT seq FROM sqlite_sequence WHERE name = 'snapshots'", &stmt, e);
    if (r < 0)
        return r;
    r = db_step(&txn, stmt, e);
    if (r < 0)
        return r;
    *ret = r > 0 ? sqlite3_column_int64(stmt, 0) : 0;
    return 0;
}

int snapshotters_new(const char *root, const struct snapshotters_options *options, struct db *db,
                     struct snapshotters **ret, struct err *e)
{
    static const struct snapshotters_options defaults = {};
    struct snapshotters *s;
    int64_t last = 0;
    int r;

    r = last_number(db, &last, e);
    if (r < 0)
        return r;
    s = calloc(1, sizeof(*s));
    if (!s)
        return err_oom(e);
    atomic_init(&s->next_dir, last + 1);
    for (size_t i = 0; i < ARRAY_SIZE(backends) && r >= 0; i++)
        r = snapshotter_new(backends[i], root, options ? options : &defaults, db, &s->next_dir,
                            &s->all[i], e);
    if (r < 0) {
        snapshotters_free(s);
        return r;
    }
    *ret = s;
    return 0;
}

struct snapshotters *snapshotters_free(struct snapshotters *s)
{
    if (!s)
        return NULL;
    for (size_t i = 0; i < ARRAY_SIZE(backends); i++)
        snapshotter_free(s->all[i]);
    free(s);
    return NULL;
}

int snapshotters_get(struct snapshotters *s, const char *name, struct snapshotter **ret,
                     struct err *e)
{
    if (str_empty(name))
        return err_set(e, ERR_INVALID_ARGUMENT, "snapshotter argument missing: invalid argument");
    for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
        if (!str_eq(s->all[i]->ops->name, name) || s->all[i]->skipped)
            continue;
        *ret = s->all[i];
        return 0;
    }
    return err_set(e, ERR_INVALID_ARGUMENT, "snapshotter not loaded: %s: invalid argument", name);
}

bool snapshotters_at(struct snapshotters *s, size_t i, const char **ret_name, const char **ret_root,
                     const char **ret_skipped)
{
    if (i >= ARRAY_SIZE(backends))
        return false;
    *ret_name = s->all[i]->ops->name;
    *ret_root = s->all[i]->root;
    *ret_skipped = s->all[i]->skipped;
    return true;
}

int snapshotters_sweep(struct snapshotters *s, struct err *e)
{
    int r = 0;

    for (size_t i = 0; i < ARRAY_SIZE(backends) && r >= 0; i++)
        r = snapshotter_sweep(s->all[i], e);
    return r;
}
