/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/config.h"

#include <fcntl.h>
#include <glob.h>
#include <limits.h>

#include "base/fs.h"
#include "base/sock.h"
#include "base/str.h"
#include "daemon/config_keys.h"

/* The files being read, each imported by the one before, to find cycles. */
struct import_chain {
    const struct import_chain *parent;
    const char *real_path;
    int64_t version;
    unsigned *n_files; /* read so far in all */
};

int config_init(struct config *c, struct err *e)
{
    *c = (struct config){
        .max_recv_message_bytes = 16 << 20,
        .max_send_message_bytes = 16 << 20,
        .shim_cleanup_timeout_ms = 5000,
        .shim_load_timeout_ms = 5000,
        .shim_shutdown_timeout_ms = 3000,
        .task_state_timeout_ms = 2000,
        .gc_pause_threshold = 0.02,
        .gc_mutation_threshold = 100,
        .gc_startup_delay_ms = 100,
        .root = strdup("/var/lib/wherry"),
        .state = strdup("/run/wherry"),
        .grpc_address = strdup("/run/wherry/wherry.sock"),
        .ttrpc_address = strdup(""),
        .log_level = strdup("info"),
        .content_sharing_policy = strdup("shared"),
        .linux_shim = strdup("containerd-shim"),
        .linux_runtime = strdup(""),
        .linux_runtime_root = strdup(""),
        .oci_runtime = strdup(""),
        .shim = strdup(""),
        .shim_socket_dir = strdup("/run/containerd/s"),
        .overlay_root_path = strdup(""),
        .native_root_path = strdup(""),
    };
    int r = strv_push(&c->differs, "walking");

    for (size_t i = 0; i < config_n_keys; i++) {
        enum config_kind kind = config_keys[i].kind;
        if ((kind == CONFIG_STRING || kind == CONFIG_LEVEL || kind == CONFIG_SHARING) &&
            !*(char **)((char *)c + config_keys[i].offset))
            r = -ENOMEM;
    }
    if (r < 0) {
        config_done(c);
        return err_oom(e);
    }
    return 0;
}

void config_done(struct config *c)
{
    for (size_t i = 0; i < config_n_keys; i++) {
        void *field = (char *)c + config_keys[i].offset;
        switch (config_keys[i].kind) {
        case CONFIG_STRING:
        case CONFIG_LEVEL:
        case CONFIG_SHARING:
            free(*(char **)field);
            break;
        case CONFIG_STRINGS:
        case CONFIG_PLUGINS:
            strv_free(*(char ***)field);
            break;
        default:
            break;
        }
    }
    strv_free(c->imports);
    strv_free(c->warnings);
    *c = (struct config){};
}

static int check_version(const char *path, const struct toml_value *root,
                         const struct import_chain *parent, int64_t *ret, struct err *e)
{
    const struct toml_value *v = toml_get(root, "version");

    if (!v && parent) {
        *ret = parent->version;
        return 0;
    }
    /* Comments alone have no layout that could be misread. */
    if (!v && root->table.n == 0) {
        *ret = 2;
        return 0;
    }
    if (!v || (v->type == TOML_INTEGER && v->integer == 1))
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "%s:%u: this is the layout of version 1, which is not supported: write "
                       "\"version = 2\" at the top and the full ids of plugins, such as "
                       "[plugins.\"io.containerd.gc.v1.scheduler\"]",
                       path, v ? v->line : 1);
    if (v->type != TOML_INTEGER || v->integer < 2 || v->integer > 3)
        return err_set(e, ERR_INVALID_ARGUMENT, "%s:%u: version must be 2 or 3", path, v->line);
    *ret = v->integer;
    return 0;
}

static int expect_table(const char *path, const char *name, const struct toml_value *v,
                        struct err *e)
{
    if (v->type == TOML_TABLE)
        return 0;
    return err_set(e, ERR_INVALID_ARGUMENT, "%s:%u: %.128s must be a table, not %s", path, v->line,
                   name, toml_type_name(v->type));
}

static bool is_known_table(const char *name)
{
    for (size_t i = 0; i < config_n_keys; i++)
        if (str_eq(config_keys[i].table, name))
            return true;
    return false;
}

static int read_plugins(struct config *c, const char *path, const struct toml_value *plugins,
                        struct err *e)
{
    int r = expect_table(path, "plugins", plugins, e);

    for (size_t i = 0; r >= 0 && i < plugins->table.n; i++) {
        const struct toml_member *m = &plugins->table.members[i];
        r = expect_table(path, m->key, m->value, e);
        if (r < 0)
            return r;
        if (config_is_plugin(m->key) && is_known_table(m->key))
            r = config_read_table(c, path, m->key, m->value, e);
        else
            r = config_warn(c, e, "%s:%u: unknown plugin %.128s is ignored", path, m->value->line,
                            m->key);
    }
    return r;
}

static int read_root(struct config *c, const char *path, const struct toml_value *root,
                     struct err *e)
{
    static const char *const tables[] = {"grpc", "ttrpc", "debug", "timeouts"};
    int r = config_read_table(c, path, "", root, e);

    for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(tables); i++) {
        const struct toml_value *v = toml_get(root, tables[i]);
        if (!v)
            continue;
        r = expect_table(path, tables[i], v, e);
        if (r >= 0)
            r = config_read_table(c, path, tables[i], v, e);
    }
    const struct toml_value *plugins = toml_get(root, "plugins");
    if (r >= 0 && plugins)
        r = read_plugins(c, path, plugins, e);
    return r;
}

static int load_file(struct config *c, const char *path, const struct import_chain *parent,
                     unsigned *n_files, struct err *e);

/* A directory that is not there has nothing to import; one that cannot be read might. */
static int glob_failed(const char *path, int errnum)
{
    return errnum != ENOENT && errnum != ENOTDIR;
}

/* What one entry of `imports` names: a file, or those that a pattern matches, sorted. */
static int load_import(struct config *c, const char *pattern, const struct import_chain *chain,
                       struct err *e)
{
    glob_t found = {};

    if (!strpbrk(pattern, "*?["))
        return load_file(c, pattern, chain, chain->n_files, e);
    int r = glob(pattern, 0, glob_failed, &found);
    if (r == GLOB_NOMATCH) {
        r = 0;
    } else if (r == GLOB_NOSPACE) {
        r = err_oom(e);
    } else if (r != 0) {
        r = err_set(e, ERR_INVALID_ARGUMENT, "read what %s imports, %s: directory not readable",
                    chain->real_path, pattern);
    } else {
        for (size_t i = 0; r >= 0 && i < found.gl_pathc; i++)
            r = load_file(c, found.gl_pathv[i], chain, chain->n_files, e);
    }
    globfree(&found);
    return r;
}

/* Relative entries are beneath the directory of the file that names them. */
static int load_imports(struct config *c, const char *path, const struct toml_value *imports,
                        const struct import_chain *chain, struct err *e)
{
    if (imports->type != TOML_ARRAY)
        return err_set(e, ERR_INVALID_ARGUMENT, "%s:%u: imports must be an array, not %s", path,
                       imports->line, toml_type_name(imports->type));
    for (size_t i = 0; i < imports->array.n; i++) {
        const struct toml_value *v = imports->array.items[i];
        if (v->type != TOML_STRING || v->string.len == 0 ||
            strlen(v->string.bytes) != v->string.len)
            return err_set(e, ERR_INVALID_ARGUMENT, "%s:%u: imports must be an array of paths",
                           path, v->line);
        const char *slash = strrchr(chain->real_path, '/');
        int dir_len = slash ? (int)(slash - chain->real_path) : 0;
        _free_ char *pattern =
            v->string.bytes[0] == '/'
                ? strdup(v->string.bytes)
                : str_printf("%.*s/%s", dir_len, chain->real_path, v->string.bytes);
        if (!pattern)
            return err_oom(e);
        int r = config_add(&c->imports, pattern, e);
        if (r >= 0)
            r = load_import(c, pattern, chain, e);
        if (r < 0)
            return r;
    }
    return 0;
}

static int load_file(struct config *c, const char *path, const struct import_chain *parent,
                     unsigned *n_files, struct err *e)
{
    _cleanup_(toml_freep) struct toml_value *root = NULL;
    _free_ char *text = NULL, *real_path = realpath(path, NULL);
    size_t n;

    int r = real_path ? fs_read_file(AT_FDCWD, path, CONFIG_FILE_MAX, &text, &n) : -errno;
    if (r == -ENOENT && !parent)
        return err_set(e, ERR_NOT_FOUND,
                       "configuration file %s: not found; \"wherryd config default\" prints one to "
                       "begin with",
                       path);
    if (r == -ENOMEM)
        return err_oom(e);
    if (r < 0) {
        err_errno(e, r, parent ? "read imported file %s" : "read configuration file %s", path);
        if (e)
            e->code = ERR_INVALID_ARGUMENT;
        return ERR_RETURN;
    }
    for (const struct import_chain *a = parent; a; a = a->parent)
        if (str_eq(a->real_path, real_path))
            return err_set(e, ERR_INVALID_ARGUMENT, "%s imports %s, which imports it in turn",
                           parent->real_path, path);
    if (++*n_files > CONFIG_IMPORTS_MAX)
        return err_set(e, ERR_INVALID_ARGUMENT, "%s: more than %d imported files", path,
                       CONFIG_IMPORTS_MAX);

    struct import_chain chain = {.parent = parent, .real_path = real_path, .n_files = n_files};
    r = toml_parse(text, n, path, &root, e);
    if (r >= 0)
        r = check_version(path, root, parent, &chain.version, e);
    if (r >= 0)
        r = read_root(c, path, root, e);
    const struct toml_value *imports = root ? toml_get(root, "imports") : NULL;
    if (r >= 0 && imports)
        r = load_imports(c, path, imports, &chain, e);
    return r;
}

int config_load(struct config *c, const char *path, struct err *e)
{
    unsigned n_files = 0;

    return load_file(c, path, NULL, &n_files, e);
}

static int check_path(const char *what, const char *path, struct err *e)
{
    if (!*path)
        return err_set(e, ERR_INVALID_ARGUMENT, "%s must be specified: invalid argument", what);
    if (*path != '/')
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "%s %.256s must be an absolute path: invalid argument", what, path);
    return 0;
}

static int check_socket(const char *what, const char *path, struct err *e)
{
    int r = check_path(what, path, e);

    if (r < 0)
        return r;
    if (strlen(path) > SOCK_PATH_MAX)
        return err_set(
            e, ERR_INVALID_ARGUMENT,
            "%s %.256s is longer than the %d bytes a socket path can have: invalid argument", what,
            path, SOCK_PATH_MAX);
    return 0;
}

/* Lexically cleaned, so that a slash at the end makes no other path. */
static int clean(char **path, struct err *e)
{
    char *cleaned = fs_clean_path(*path);

    if (!cleaned)
        return err_oom(e);
    free(*path);
    *path = cleaned;
    return 0;
}

int config_finish(struct config *c, struct err *e)
{
    int r = check_path("root", c->root, e);

    if (r >= 0)
        r = check_path("state", c->state, e);
    if (r >= 0)
        r = clean(&c->root, e);
    if (r >= 0)
        r = clean(&c->state, e);
    if (r < 0)
        return r;
    if (str_eq(c->root, c->state))
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "root and state must be different paths: invalid argument");
    if (*c->overlay_root_path)
        r = check_path("root_path of overlayfs", c->overlay_root_path, e);
    if (r >= 0 && *c->native_root_path)
        r = check_path("root_path of native", c->native_root_path, e);
    if (r >= 0 && *c->overlay_root_path && str_eq(c->overlay_root_path, c->native_root_path))
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "root_path of overlayfs and of native must be different: invalid argument");
    if (r >= 0)
        r = check_socket("grpc address", c->grpc_address, e);
    if (r < 0)
        return r;
    if (!*c->ttrpc_address) {
        char *address = str_printf("%s.ttrpc", c->grpc_address);
        if (!address)
            return err_oom(e);
        free(c->ttrpc_address);
        c->ttrpc_address = address;
        c->ttrpc_uid = c->grpc_uid;
        c->ttrpc_gid = c->grpc_gid;
    }
    r = check_socket("ttrpc address", c->ttrpc_address, e);
    if (r < 0)
        return r;
    if (str_eq(c->grpc_address, c->ttrpc_address))
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "grpc and ttrpc address must be different paths: invalid argument");
    return 0;
}
