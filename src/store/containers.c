/* SPDX-License-Identifier: Apache-2.0 */
#include "store/containers.h"

#include "base/identifier.h"
#include "base/str.h"
#include "store/label_mask.h"
#include "store/labels.h"
#include "store/namespaces.h"

#define KIND "container"
#define COLUMNS                                                                                  \
    "id, image, runtime, snapshotter, snapshot_key, sandbox, options_type, options, spec_type, " \
    "spec, created_at, updated_at"

void container_done(struct container *c)
{
    free(c->id);
    strmap_done(&c->labels);
    free(c->image);
    free(c->runtime_name);
    any_done(&c->runtime_options);
    any_done(&c->spec);
    free(c->snapshotter);
    free(c->snapshot_key);
    free(c->sandbox);
    anymap_done(&c->extensions);
    *c = (struct container){};
}

void container_list_done(struct container_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        container_done(&l->containers[i]);
    free(l->containers);
    *l = (struct container_list){};
}

static const char *present(const char *s)
{
    return str_empty(s) ? NULL : s;
}

const char *container_field(const void *object, const char *const *path, size_t n)
{
    const struct container *c = object;
    char key[LABEL_MAX + 1];

    if (n == 1 && str_eq(path[0], "id"))
        return present(c->id);
    if (n == 1 && str_eq(path[0], "image"))
        return present(c->image);
    if (n == 2 && str_eq(path[0], "runtime") && str_eq(path[1], "name"))
        return present(c->runtime_name);
    if (n > 1 && str_eq(path[0], "labels"))
        return strmap_get(&c->labels, filter_join_path(path, 1, n, key, sizeof(key)));
    return NULL;
}

/* An any in two columns: its type and its bytes. */
static int column_any(sqlite3_stmt *stmt, int column, struct any *ret)
{
    if (sqlite3_column_type(stmt, column) == SQLITE_NULL)
        return 0;
    return any_set(ret, db_column_text(stmt, column), sqlite3_column_blob(stmt, column + 1),
                   (size_t)sqlite3_column_bytes(stmt, column + 1));
}

/* A blob that is empty, not NULL, when there are no bytes. */
static int bind_value(sqlite3_stmt *stmt, int index, const struct any *a)
{
    int rc = a->value_len == 0
                 ? sqlite3_bind_zeroblob(stmt, index, 0)
                 : sqlite3_bind_blob64(stmt, index, a->value, a->value_len, SQLITE_STATIC);

    return rc == SQLITE_OK ? 0 : -ENOMEM;
}

static int read_extensions(struct db_txn *txn, const char *ns, struct container *c, struct err *e)
{
    sqlite3_stmt *stmt;
    int r = db_query(txn,
                     "SELECT key, type, value FROM container_extensions WHERE ns = ?1 AND id = ?2 "
                     "ORDER BY key",
                     2, (const char *const[]){ns, c->id}, &stmt, e);

    if (r < 0)
        return r;
    while ((r = db_step(txn, stmt, e)) > 0) {
        _cleanup_(any_done) struct any value = {};
        if (column_any(stmt, 1, &value) < 0 ||
            anymap_set(&c->extensions, db_column_text(stmt, 0), &value) < 0)
            return err_oom(e);
    }
    return r;
}

static int read_row(struct db_txn *txn, const char *ns, sqlite3_stmt *stmt, struct container *ret,
                    struct err *e)
{
    char **const texts[] = {&ret->id,          &ret->image,        &ret->runtime_name,
                            &ret->snapshotter, &ret->snapshot_key, &ret->sandbox};
    int r;

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        if (!(*texts[i] = db_column_dup(stmt, (int)i)))
            return err_oom(e);
    if (column_any(stmt, 6, &ret->runtime_options) < 0 || column_any(stmt, 8, &ret->spec) < 0)
        return err_oom(e);
    ret->created_at = db_column_time(stmt, 10);
    ret->updated_at = db_column_time(stmt, 11);
    r = read_extensions(txn, ns, ret, e);
    return r < 0 ? r : labels_read(txn, ns, KIND, ret->id, &ret->labels, e);
}

/* 1 and the container; 0: there is none. */
static int find(struct db_txn *txn, const char *ns, const char *id, struct container *ret,
                struct err *e)
{
    _cleanup_(container_done) struct container c = {};
    sqlite3_stmt *stmt;
    int r;

    r = db_query(txn, "SELECT " COLUMNS " FROM containers WHERE ns = ?1 AND id = ?2", 2,
                 (const char *const[]){ns, id}, &stmt, e);
    if (r < 0)
        return r;
    r = db_step(txn, stmt, e);
    if (r <= 0)
        return r;
    r = read_row(txn, ns, stmt, &c, e);
    sqlite3_reset(stmt);
    if (r < 0)
        return r;
    *ret = c;
    c = (struct container){};
    return 1;
}

int container_get(struct db *db, const char *ns, const char *id, struct container *ret,
                  struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    int r = db_begin(db, DB_READ, &txn, e);

    if (r < 0)
        return r;
    r = find(&txn, ns, id, ret, e);
    if (r == 0)
        return err_set(e, ERR_NOT_FOUND, "container \"%s\" in namespace \"%s\": not found", id, ns);
    return r < 0 ? r : 0;
}

int container_list(struct db *db, const char *ns, const struct filter *filter,
                   struct container_list *ret, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    _cleanup_(container_list_done) struct container_list list = {};
    sqlite3_stmt *stmt;
    int r;

    if ((r = db_begin(db, DB_READ, &txn, e)) < 0 ||
        (r = db_query(&txn, "SELECT " COLUMNS " FROM containers WHERE ns = ?1 ORDER BY id", 1,
                      (const char *const[]){ns}, &stmt, e)) < 0)
        return r;
    while ((r = db_step(&txn, stmt, e)) > 0) {
        _cleanup_(container_done) struct container c = {};
        struct container *containers;

        r = read_row(&txn, ns, stmt, &c, e);
        if (r < 0)
            return r;
        if (filter && !filter_matches(filter, container_field, &c))
            continue;
        containers = reallocarray(list.containers, list.n + 1, sizeof(*containers));
        if (!containers)
            return err_oom(e);
        list.containers = containers;
        containers[list.n++] = c;
        c = (struct container){};
    }
    if (r < 0)
        return r;
    *ret = list;
    list = (struct container_list){};
    return 0;
}

static int validate(const struct container *c, struct err *e)
{
    if (identifier_validate(str_or_empty(c->id), e) < 0)
        return err_wrap(e, "container.ID");
    if (anymap_get(&c->extensions, ""))
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "container.Extension keys must not be zero-length: invalid argument");
    if (labels_validate(&c->labels, e) < 0)
        return err_wrap(e, "containers.Labels");
    if (str_empty(c->runtime_name))
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "container.Runtime.Name must be set: invalid argument");
    if (any_is_empty(&c->spec))
        return err_set(e, ERR_INVALID_ARGUMENT, "container.Spec must be set: invalid argument");
    if (!str_empty(c->snapshot_key) && str_empty(c->snapshotter))
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "container.Snapshotter must be set if container.SnapshotKey is set: "
                       "invalid argument");
    return 0;
}

static int store_extensions(struct db_txn *txn, const char *ns, const struct container *c,
                            struct err *e)
{
    int r = db_exec(txn, e, "DELETE FROM container_extensions WHERE ns = ?1 AND id = ?2", 2,
                    (const char *const[]){ns, c->id});

    for (size_t i = 0; r >= 0 && i < c->extensions.n; i++) {
        const struct anymap_entry *x = &c->extensions.entries[i];
        sqlite3_stmt *stmt;

        r = db_query(txn,
                     "INSERT INTO container_extensions (ns, id, key, type, value) "
                     "VALUES (?1, ?2, ?3, ?4, ?5)",
                     4, (const char *const[]){ns, c->id, x->key, str_or_empty(x->value.type_url)},
                     &stmt, e);
        if (r < 0)
            return r;
        if (bind_value(stmt, 5, &x->value) < 0)
            return err_oom(e);
        r = db_step(txn, stmt, e);
    }
    return r < 0 ? r : 0;
}

/* Writes the row, the extensions and the labels, over what is there. */
static int store(struct db_txn *txn, const char *ns, const struct container *c, struct err *e)
{
    bool options = !any_is_empty(&c->runtime_options);
    sqlite3_stmt *stmt;
    int r;

    r = db_query(txn,
                 "INSERT OR REPLACE INTO containers (ns, id, image, runtime, snapshotter, "
                 "snapshot_key, sandbox, spec_type, options_type, options, spec, created_at, "
                 "updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
                 9,
                 (const char *const[]){ns, c->id, str_or_empty(c->image), c->runtime_name,
                                       str_or_empty(c->snapshotter), str_or_empty(c->snapshot_key),
                                       str_or_empty(c->sandbox), str_or_empty(c->spec.type_url),
                                       options ? str_or_empty(c->runtime_options.type_url) : NULL},
                 &stmt, e);
    if (r < 0)
        return r;
    if ((options && bind_value(stmt, 10, &c->runtime_options) < 0) ||
        bind_value(stmt, 11, &c->spec) < 0)
        return err_oom(e);
    db_bind_time(stmt, 12, c->created_at);
    db_bind_time(stmt, 13, c->updated_at);
    if ((r = db_step(txn, stmt, e)) < 0 || (r = store_extensions(txn, ns, c, e)) < 0)
        return r;
    return labels_write(txn, ns, KIND, c->id, &c->labels, e);
}

/* Reads back what was stored (labels without a value are gone), and commits. */
static int finish(struct db_txn *txn, const char *ns, const char *id, struct container *ret,
                  struct err *e)
{
    _cleanup_(container_done) struct container c = {};
    int r = find(txn, ns, id, &c, e);

    if (r < 0 || (r = db_commit(txn, e)) < 0)
        return r;
    *ret = c;
    c = (struct container){};
    return 0;
}

int container_create(struct db *db, const char *ns, const struct container *c,
                     struct container *ret, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    struct container stamped = *c;
    int r;

    stamped.created_at = stamped.updated_at = clock_realtime();
    if (validate(c, e) < 0)
        return err_wrap(e, "create container failed validation");
    if ((r = db_begin(db, DB_WRITE, &txn, e)) < 0 || (r = namespace_ensure(&txn, ns, e)) < 0)
        return r;
    r = db_exists(&txn, e, "SELECT 1 FROM containers WHERE ns = ?1 AND id = ?2", 2,
                  (const char *const[]){ns, c->id});
    if (r < 0)
        return r;
    if (r > 0)
        return err_set(e, ERR_ALREADY_EXISTS, "container \"%s\": already exists", c->id);
    r = store(&txn, ns, &stamped, e);
    return r < 0 ? r : finish(&txn, ns, c->id, ret, e);
}

static int replace_image(struct container *to, const struct container *c)
{
    char *image = strdup(str_or_empty(c->image));

    if (!image)
        return -ENOMEM;
    free(to->image);
    to->image = image;
    return 1;
}

static int replace_snapshot_key(struct container *to, const struct container *c)
{
    char *key = strdup(str_or_empty(c->snapshot_key));

    if (!key)
        return -ENOMEM;
    free(to->snapshot_key);
    to->snapshot_key = key;
    return 1;
}

static int replace_extension(struct container *to, const struct container *c, const char *key)
{
    const struct any *value = anymap_get(&c->extensions, key);

    if (!value) {
        anymap_unset(&to->extensions, key);
        return 1;
    }
    return anymap_set(&to->extensions, key, value) < 0 ? -ENOMEM : 1;
}

static int apply_path(struct container *to, const struct container *c, const char *path,
                      struct err *e)
{
    int r = label_mask_apply_path(&to->labels, &c->labels, "labels", path);

    if (r != 0)
        return r < 0 ? err_oom(e) : 0;
    if (str_after_prefix(path, "extensions."))
        r = replace_extension(to, c, str_after_prefix(path, "extensions."));
    else if (str_eq(path, "extensions"))
        r = anymap_copy(&to->extensions, &c->extensions) < 0 ? -ENOMEM : 1;
    else if (str_eq(path, "spec"))
        r = any_copy(&to->spec, &c->spec) < 0 ? -ENOMEM : 1;
    else if (str_eq(path, "image"))
        r = replace_image(to, c);
    else if (str_eq(path, "snapshotkey"))
        r = replace_snapshot_key(to, c);
    else
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "cannot update \"%s\" field on \"%s\": invalid argument", path, c->id);
    return r < 0 ? err_oom(e) : 0;
}

static int check_immutable(const struct container *stored, const struct container *c, struct err *e)
{
    if (!str_eq(stored->snapshotter, str_or_empty(c->snapshotter)))
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "container.Snapshotter field is immutable: invalid argument");
    if (!str_eq(stored->runtime_name, str_or_empty(c->runtime_name)))
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "container.Runtime.Name field is immutable: invalid argument");
    return 0;
}

static int has_any(struct db_txn *txn, const char *ns, struct err *e)
{
    return db_exists(txn, e, "SELECT 1 FROM containers WHERE ns = ?1", 1,
                     (const char *const[]){ns});
}

int container_update(struct db *db, const char *ns, const struct container *c,
                     const char *const *paths, size_t n_paths, struct container *ret, struct err *e)
{
    static const char *const all[] = {"labels", "spec", "extensions", "image", "snapshotkey"};
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    _cleanup_(container_done) struct container stored = {};
    int r;

    if (str_empty(c->id))
        return err_set(e, ERR_INVALID_ARGUMENT, "must specify a container id: invalid argument");
    if ((r = db_begin(db, DB_WRITE, &txn, e)) < 0 || (r = find(&txn, ns, c->id, &stored, e)) < 0)
        return r;
    if (r == 0) {
        r = has_any(&txn, ns, e);
        if (r < 0)
            return r;
        return r > 0 ? err_set(e, ERR_NOT_FOUND, "container \"%s\": not found", c->id)
                     : err_set(e, ERR_NOT_FOUND,
                               "cannot update container \"%s\" in namespace \"%s\": not found",
                               c->id, ns);
    }
    if (n_paths == 0) {
        if ((r = check_immutable(&stored, c, e)) < 0)
            return r;
        paths = all;
        n_paths = ARRAY_SIZE(all);
    }
    for (size_t i = 0; i < n_paths; i++)
        if ((r = apply_path(&stored, c, paths[i], e)) < 0)
            return r;
    stored.updated_at = clock_realtime();
    if ((r = validate(&stored, e)) < 0 || (r = store(&txn, ns, &stored, e)) < 0)
        return r;
    return finish(&txn, ns, c->id, ret, e);
}

int container_delete(struct db *db, const char *ns, const char *id, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    int r;

    if ((r = db_begin(db, DB_REMOVE, &txn, e)) < 0 || (r = has_any(&txn, ns, e)) < 0)
        return r;
    if (r == 0)
        return err_set(e, ERR_NOT_FOUND,
                       "cannot delete container \"%s\" in namespace \"%s\": not found", id, ns);
    r = db_exec(&txn, e, "DELETE FROM containers WHERE ns = ?1 AND id = ?2", 2,
                (const char *const[]){ns, id});
    if (r < 0)
        return r;
    if (r == 0)
        return err_set(e, ERR_NOT_FOUND, "container %s: not found", id);
    if ((r = db_exec(&txn, e, "DELETE FROM container_extensions WHERE ns = ?1 AND id = ?2", 2,
                     (const char *const[]){ns, id})) < 0 ||
        (r = labels_remove(&txn, ns, KIND, id, e)) < 0)
        return r;
    return db_commit(&txn, e);
}
