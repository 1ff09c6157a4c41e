/* SPDX-License-Identifier: Apache-2.0 */
/* A database in a directory of its own, for the tests of this folder. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/str.h"
#include "store/db.h"

struct test_store {
    char dir[32];
    char path[64];
    struct db *db;
    struct err e;
};

static inline void test_store_make(struct test_store *t)
{
    *t = (struct test_store){.dir = "/tmp/wherry-store-XXXXXX"};
    assert_non_null(mkdtemp(t->dir));
    snprintf(t->path, sizeof(t->path), "%s/meta.db", t->dir);
}

static inline int test_store_setup(void **state)
{
    struct test_store *t = calloc(1, sizeof(*t));

    assert_non_null(t);
    test_store_make(t);
    if (db_open(t->path, &t->db, &t->e) < 0)
        fail_msg("%s", t->e.msg);
    *state = t;
    return 0;
}

static inline int test_store_teardown(void **state)
{
    struct test_store *t = *state;

    db_close(t->db);
    assert_int_equal(fs_rm_rf(-EBADF, t->dir), 0);
    free(t);
    return 0;
}

/* The call succeeds, or fails with this code and sentence. */
#define assert_ok(t, call)                         \
    do {                                           \
        if ((call) < 0)                            \
            fail_msg("%s: %s", #call, (t)->e.msg); \
    } while (0)
#define assert_fails(t, call, code_, sentence)     \
    do {                                           \
        err_clear(&(t)->e);                        \
        assert_true((call) < 0);                   \
        assert_string_equal((t)->e.msg, sentence); \
        assert_int_equal((t)->e.code, code_);      \
    } while (0)

/* A map of "k=v" words; the caller is done with it. */
static inline struct strmap test_map(const char *const *words)
{
    struct strmap m = {};

    for (; words && *words; words++) {
        char key[256];
        const char *eq = strchr(*words, '=');
        snprintf(key, sizeof(key), "%.*s", (int)(eq - *words), *words);
        assert_int_equal(strmap_set(&m, key, eq + 1), 0);
    }
    return m;
}
#define MAP(...) test_map((const char *const[]){__VA_ARGS__, NULL})
#define TEST(name) cmocka_unit_test_setup_teardown(name, test_store_setup, test_store_teardown)
#define DIGEST(c)                                                                                 \
    "sha256:" c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c \
        c c c c c c c c c c c c c c c c c c c c c c
