/* SPDX-License-Identifier: Apache-2.0 */
#include "store/images.h"

#include <jansson.h>

#include "base/identifier.h"
#include "base/str.h"
#include "oci/digest.h"
#include "store/label_mask.h"
#include "store/labels.h"
#include "store/leases.h"
#include "store/namespaces.h"

#define KIND "image"
#define COLUMNS "name, media_type, digest, size, annotations, created_at, updated_at"

void image_done(struct image *i)
{
    free(i->name);
    strmap_done(&i->labels);
    free(i->target.media_type);
    free(i->target.digest);
    strmap_done(&i->target.annotations);
    *i = (struct image){};
}

void image_list_done(struct image_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        image_done(&l->images[i]);
    free(l->images);
    *l = (struct image_list){};
}

static const char *present(const char *s)
{
    return str_empty(s) ? NULL : s;
}

const char *image_field(const void *object, const char *const *path, size_t n)
{
    const struct image *i = object;
    char key[LABEL_MAX + 1];

    if (n == 1 && str_eq(path[0], "name"))
        return present(i->name);
    if (n == 2 && str_eq(path[0], "target"))
        return str_eq(path[1], "digest")      ? present(i->target.digest)
               : str_eq(path[1], "mediatype") ? present(i->target.media_type)
                                              : NULL;
    if (n > 1 && str_eq(path[0], "labels"))
        return strmap_get(&i->labels, filter_join_path(path, 1, n, key, sizeof(key)));
    if (n > 1 && str_eq(path[0], "annotations"))
        return strmap_get(&i->target.annotations, filter_join_path(path, 1, n, key, sizeof(key)));
    return NULL;
}

static void jsonp(json_t **j)
{
    json_decref(*j);
}

static char *annotations_encode(const struct strmap *m)
{
    _cleanup_(jsonp) json_t *object = json_object();

    STRMAP_FOREACH (a, m) {
        if (json_object_set_new(object, a->key, json_string(a->value)) < 0)
            return NULL;
    }
    return object ? json_dumps(object, JSON_COMPACT) : NULL;
}

static int annotations_decode(const char *text, struct strmap *ret, struct err *e)
{
    _cleanup_(jsonp) json_t *object = json_loads(text, 0, NULL);
    const char *key;
    json_t *value;

    if (!json_is_object(object))
        return err_set(e, ERR_DATA_LOSS, "annotations of an image are not a JSON object");
    json_object_foreach(object, key, value)
    {
        if (json_is_string(value) && strmap_set(ret, key, json_string_value(value)) < 0)
            return err_oom(e);
    }
    return 0;
}

static int read_row(struct db_txn *txn, const char *ns, sqlite3_stmt *stmt, struct image *ret,
                    struct err *e)
{
    int r;

    ret->name = db_column_dup(stmt, 0);
    ret->target.media_type = db_column_dup(stmt, 1);
    ret->target.digest = db_column_dup(stmt, 2);
    ret->target.size = sqlite3_column_int64(stmt, 3);
    ret->created_at = db_column_time(stmt, 5);
    ret->updated_at = db_column_time(stmt, 6);
    if (!ret->name || !ret->target.media_type || !ret->target.digest)
        return err_oom(e);
    r = annotations_decode(db_column_text(stmt, 4), &ret->target.annotations, e);
    return r < 0 ? r : labels_read(txn, ns, KIND, ret->name, &ret->labels, e);
}

/* 1 and the image; 0: there is none. */
static int find(struct db_txn *txn, const char *ns, const char *name, struct image *ret,
                struct err *e)
{
    _cleanup_(image_done) struct image i = {};
    sqlite3_stmt *stmt;
    int r;

    r = db_query(txn, "SELECT " COLUMNS " FROM images WHERE ns = ?1 AND name = ?2", 2,
                 (const char *const[]){ns, name}, &stmt, e);
    if (r < 0)
        return r;
    r = db_step(txn, stmt, e);
    if (r <= 0)
        return r;
    r = read_row(txn, ns, stmt, &i, e);
    sqlite3_reset(stmt);
    if (r < 0)
        return r;
    *ret = i;
    i = (struct image){};
    return 1;
}

static int find_or_fail(struct db_txn *txn, const char *ns, const char *name, struct image *ret,
                        struct err *e)
{
    int r = find(txn, ns, name, ret, e);

    return r == 0 ? err_set(e, ERR_NOT_FOUND, "image \"%s\": not found", name) : r;
}

int image_get(struct db *db, const char *ns, const char *name, struct image *ret, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    int r = db_begin(db, DB_READ, &txn, e);

    if (r < 0)
        return r;
    r = find_or_fail(&txn, ns, name, ret, e);
    return r < 0 ? r : 0;
}

int image_list(struct db *db, const char *ns, const struct filter *filter, struct image_list *ret,
               struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    _cleanup_(image_list_done) struct image_list list = {};
    sqlite3_stmt *stmt;
    int r;

    if ((r = db_begin(db, DB_READ, &txn, e)) < 0 ||
        (r = db_query(&txn, "SELECT " COLUMNS " FROM images WHERE ns = ?1 ORDER BY name", 1,
                      (const char *const[]){ns}, &stmt, e)) < 0)
        return r;
    while ((r = db_step(&txn, stmt, e)) > 0) {
        _cleanup_(image_done) struct image i = {};
        struct image *images;

        r = read_row(&txn, ns, stmt, &i, e);
        if (r < 0)
            return r;
        if (filter && !filter_matches(filter, image_field, &i))
            continue;
        images = reallocarray(list.images, list.n + 1, sizeof(*images));
        if (!images)
            return err_oom(e);
        list.images = images;
        images[list.n++] = i;
        i = (struct image){};
    }
    if (r < 0)
        return r;
    *ret = list;
    list = (struct image_list){};
    return 0;
}

static int validate(const struct image *i, struct err *e)
{
    const char *problem = digest_problem(i->target.digest);

    if (str_empty(i->name))
        return err_set(e, ERR_INVALID_ARGUMENT, "image name must not be empty: invalid argument");
    if (labels_validate(&i->labels, e) < 0)
        return err_wrap(e, "image.Labels");
    if (problem)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "Target.Digest \"%s\" invalid: %s: invalid argument",
                       str_or_empty(i->target.digest), problem);
    if (i->target.size <= 0)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "Target.Size must be greater than zero: invalid argument");
    if (str_empty(i->target.media_type))
        return err_set(e, ERR_INVALID_ARGUMENT, "Target.MediaType must be set: invalid argument");
    return 0;
}

/* Writes the row and the labels, over what is there. */
static int store(struct db_txn *txn, const char *ns, const struct image *i, struct err *e)
{
    _free_ char *annotations = annotations_encode(&i->target.annotations);
    sqlite3_stmt *stmt;
    int r;

    if (!annotations)
        return err_oom(e);
    r = db_query(
        txn,
        "INSERT OR REPLACE INTO images (ns, name, media_type, digest, annotations, size, "
        "created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        5, (const char *const[]){ns, i->name, i->target.media_type, i->target.digest, annotations},
        &stmt, e);
    if (r < 0)
        return r;
    sqlite3_bind_int64(stmt, 6, i->target.size);
    db_bind_time(stmt, 7, i->created_at);
    db_bind_time(stmt, 8, i->updated_at);
    r = db_step(txn, stmt, e);
    return r < 0 ? r : labels_write(txn, ns, KIND, i->name, &i->labels, e);
}

static struct timespec now_or(struct timespec epoch)
{
    return epoch.tv_sec || epoch.tv_nsec ? epoch : clock_realtime();
}

static int copy_target(struct image_target *to, const struct image_target *from)
{
    _free_ char *media_type = strdup(str_or_empty(from->media_type));
    _free_ char *digest = strdup(str_or_empty(from->digest));

    if (!media_type || !digest || strmap_copy(&to->annotations, &from->annotations) < 0)
        return -ENOMEM;
    free(to->media_type);
    free(to->digest);
    to->media_type = TAKE(media_type);
    to->digest = TAKE(digest);
    to->size = from->size;
    return 0;
}

/* Reads back what was stored (labels without a value are gone), and commits. */
static int finish(struct db_txn *txn, const char *ns, const char *name, struct image *ret,
                  struct err *e)
{
    _cleanup_(image_done) struct image i = {};
    int r = find_or_fail(txn, ns, name, &i, e);

    if (r < 0 || (r = db_commit(txn, e)) < 0)
        return r;
    *ret = i;
    i = (struct image){};
    return 0;
}

int image_create(struct db *db, const char *ns, const char *lease, const struct image *i,
                 struct timespec epoch, struct image *ret, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    struct image stamped = *i;
    int r;

    stamped.created_at = stamped.updated_at = now_or(epoch);
    if ((r = validate(i, e)) < 0 || (r = db_begin(db, DB_WRITE, &txn, e)) < 0 ||
        (r = namespace_ensure(&txn, ns, e)) < 0)
        return r;
    r = db_exists(&txn, e, "SELECT 1 FROM images WHERE ns = ?1 AND name = ?2", 2,
                  (const char *const[]){ns, i->name});
    if (r < 0)
        return r;
    if (r > 0)
        return err_set(e, ERR_ALREADY_EXISTS, "image \"%s\": already exists", i->name);
    if ((r = store(&txn, ns, &stamped, e)) < 0 ||
        (r = lease_attach(&txn, ns, lease, "images", i->name, e)) < 0)
        return r;
    return finish(&txn, ns, i->name, ret, e);
}

static int apply_path(struct image *to, const struct image *i, const char *path, struct err *e)
{
    int r = label_mask_apply_path(&to->labels, &i->labels, "labels", path);

    if (r == 0)
        r = label_mask_apply_path(&to->target.annotations, &i->target.annotations, "annotations",
                                  path);
    if (r == 0 && str_eq(path, "target"))
        r = copy_target(&to->target, &i->target) < 0 ? -ENOMEM : 1;
    if (r == 0)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "cannot update \"%s\" field on image \"%s\": invalid argument", path,
                       i->name);
    return r < 0 ? err_oom(e) : 0;
}

int image_update(struct db *db, const char *ns, const char *lease, const struct image *i,
                 const char *const *paths, size_t n_paths, struct timespec epoch, struct image *ret,
                 struct err *e)
{
    static const char *const all[] = {"labels", "target"};
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    _cleanup_(image_done) struct image stored = {};
    int r;

    if (str_empty(i->name))
        return err_set(e, ERR_INVALID_ARGUMENT, "image name must not be empty: invalid argument");
    if (n_paths == 0) {
        paths = all;
        n_paths = ARRAY_SIZE(all);
    }
    if ((r = db_begin(db, DB_WRITE, &txn, e)) < 0 ||
        (r = find_or_fail(&txn, ns, i->name, &stored, e)) < 0)
        return r;
    for (size_t p = 0; p < n_paths; p++)
        if ((r = apply_path(&stored, i, paths[p], e)) < 0)
            return r;
    stored.updated_at = now_or(epoch);
    if ((r = validate(&stored, e)) < 0 || (r = store(&txn, ns, &stored, e)) < 0 ||
        (r = lease_attach(&txn, ns, lease, "images", i->name, e)) < 0)
        return r;
    return finish(&txn, ns, i->name, ret, e);
}

int image_delete(struct db *db, const char *ns, const char *name, const char *expected_digest,
                 struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    _cleanup_(image_done) struct image stored = {};
    int r;

    if ((r = db_begin(db, DB_REMOVE, &txn, e)) < 0 ||
        (r = find_or_fail(&txn, ns, name, &stored, e)) < 0)
        return r;
    if (!str_empty(expected_digest) && !str_eq(expected_digest, stored.target.digest))
        return err_set(e, ERR_NOT_FOUND, "image \"%s\" has target %s, not %s: not found", name,
                       stored.target.digest, expected_digest);
    if ((r = db_exec(&txn, e, "DELETE FROM images WHERE ns = ?1 AND name = ?2", 2,
                     (const char *const[]){ns, name})) < 0 ||
        (r = labels_remove(&txn, ns, KIND, name, e)) < 0)
        return r;
    return db_commit(&txn, e);
}
