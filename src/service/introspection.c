/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the daemon is made of, under the names that clients look for: they ask for snapshotters with
 * platforms and roots, and people read the list.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/filter.h"
#include "base/fs.h"
#include "base/str.h"
#include "google/protobuf/empty.pb-c.h"
#include "oci/platform.h"
#include "service/plugins.h"
#include "services.introspection.v1.pb-c.h"
#include "store/db.h"
#include "store/gc.h"
#include "store/snapshots.h"
#include "wire/pb.h"

#define CONTENT "io.containerd.content.v1"
#define METADATA "io.containerd.metadata.v1"
#define GC "io.containerd.gc.v1"
#define RUNTIME "io.containerd.runtime.v2"

#define UUID_DIR "io.containerd.grpc.v1.introspection"
#define UUID_LEN 36

static bool set_requires(Pb__Introspection__Plugin *m, const struct plugin *p)
{
    if (!(m->requires = calloc(ARRAY_SIZE(p->requires), sizeof(*m->requires))))
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(p->requires) && p->requires[i]; i++, m->n_requires++)
        if (!service_set_string(&m->requires[i], p -> requires[i]))
            return false;
    return true;
}

static bool add_platform(Pb__Introspection__Plugin *m, const struct platform *from)
{
    Pb__Types__Platform *p = service_message_new(&pb__types__platform__descriptor);

    if (!p)
        return false;
    m->platforms[m->n_platforms++] = p;
    return service_set_string(&p->os, from->os) &&
           service_set_string(&p->architecture, from->architecture) &&
           service_set_string(&p->variant, from->variant);
}

/* Those given, or the host's. */
static bool set_platforms(Pb__Introspection__Plugin *m, const struct platform *given, size_t n)
{
    struct platform host;

    platform_host(&host);
    if (n == 0) {
        given = &host;
        n = 1;
    }
    if (!(m->platforms = calloc(n, sizeof(*m->platforms))))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!add_platform(m, &given[i]))
            return false;
    return true;
}

static bool set_exports(Pb__Introspection__Plugin *m, const struct strmap *exports)
{
    return pb_strmap_new(exports, &pb__introspection__plugin__exports_entry__descriptor,
                         (void ***)&m->exports, &m->n_exports) == 0;
}

/* The reason as the message of an error of no class, which is what clients tell "skip" by. */
static bool set_skipped(Pb__Introspection__Plugin *m, const char *why)
{
    _free_ char *message = NULL;

    message =
        str_has_suffix(why, ": skip plugin") ? strdup(why) : str_printf("%s: skip plugin", why);
    if (!message || !(m->init_err = service_message_new(&pb__rpc__status__descriptor)))
        return false;
    m->init_err->code = ERR_UNKNOWN;
    m->init_err->message = TAKE(message);
    return true;
}

static Pb__Introspection__Plugin *plugin_new(const struct service_context *ctx,
                                             const struct plugin *p, const char *id,
                                             const struct strmap *exports, const char *skipped)
{
    Pb__Introspection__Plugin *m = service_message_new(&pb__introspection__plugin__descriptor);
    size_t n_platforms = str_eq(p->type, RUNTIME) ? ctx->n_platforms : 0;

    if (m && service_set_string(&m->type, p->type) && service_set_string(&m->id, id) &&
        set_requires(m, p) &&
        (!(p->has_platform || !p->id) || set_platforms(m, ctx->platforms, n_platforms)) &&
        set_exports(m, exports) && (!skipped || set_skipped(m, skipped)))
        return m;
    pb_free((ProtobufCMessage *)m);
    return NULL;
}

static int set_printf(struct strmap *m, const char *key, const char *format, ...) _printf_(3, 4);
static int set_printf(struct strmap *m, const char *key, const char *format, ...)
{
    _free_ char *text = NULL;
    va_list args;

    va_start(args, format);
    text = str_vprintf(format, args);
    va_end(args);
    return text ? strmap_set(m, key, text) : -ENOMEM;
}

/* What a plugin tells about itself. */
static int exports_of(struct service_context *ctx, const struct plugin *p, struct strmap *ret)
{
    if (str_eq(p->type, CONTENT))
        return set_printf(ret, "root", "%s/%s", ctx->root, CONTENT ".content");
    if (str_eq(p->type, METADATA))
        return strmap_set(ret, "path", db_path(ctx->db));
    if (str_eq(p->type, GC)) {
        const struct gc_options *o = gc_get_options(ctx->gc);
        int r = set_printf(ret, "DeletionThreshold", "%lld", (long long)o->deletion_threshold);
        if (r == 0)
            r = set_printf(ret, "MutationThreshold", "%lld", (long long)o->mutation_threshold);
        if (r == 0)
            r = set_printf(ret, "PauseThreshold", "%g", o->pause_threshold);
        return r < 0 ? r
                     : set_printf(ret, "ScheduleDelay", o->schedule_delay_ms ? "%llums" : "%llus",
                                  (unsigned long long)o->schedule_delay_ms);
    }
    return 0;
}

static const char *plugin_field(const void *object, const char *const *path, size_t n)
{
    const Pb__Introspection__Plugin *m = object;

    if (n == 1 && str_eq(path[0], "type"))
        return m->type;
    if (n == 1 && str_eq(path[0], "id"))
        return m->id;
    return NULL;
}

/* Takes the plugin, NULL too. */
static int append(Pb__Introspection__PluginsResponse *reply, const struct filter *filter,
                  Pb__Introspection__Plugin *m, struct err *e)
{
    Pb__Introspection__Plugin **all;

    if (!m)
        return err_oom(e);
    if (!filter_matches(filter, plugin_field, m)) {
        pb_free(&m->base);
        return 0;
    }
    all = reallocarray(reply->plugins, reply->n_plugins + 1, sizeof(*all));
    if (!all) {
        pb_free(&m->base);
        return err_oom(e);
    }
    reply->plugins = all;
    all[reply->n_plugins++] = m;
    return 0;
}

static int append_snapshotters(struct service_context *ctx, const struct plugin *p,
                               Pb__Introspection__PluginsResponse *reply,
                               const struct filter *filter, struct err *e)
{
    const char *name, *root, *skipped;
    int r = 0;

    for (size_t i = 0; r >= 0 && snapshotters_at(ctx->snapshotters, i, &name, &root, &skipped);
         i++) {
        _cleanup_(strmap_done) struct strmap exports = {};

        if (strmap_set(&exports, "root", root) < 0)
            return err_oom(e);
        r = append(reply, filter, plugin_new(ctx, p, name, &exports, skipped), e);
    }
    return r;
}

static int list(struct service_context *ctx, const Pb__Introspection__PluginsRequest *req,
                Pb__Introspection__PluginsResponse *reply, struct err *e)
{
    _cleanup_(filter_freep) struct filter *filter = NULL;
    int r = filter_parse((const char *const *)req->filters, req->n_filters, &filter, e);

    for (size_t i = 0; r >= 0 && i < n_plugins; i++) {
        _cleanup_(strmap_done) struct strmap exports = {};
        const struct plugin *p = &plugins[i];

        if (!p->id) {
            r = append_snapshotters(ctx, p, reply, filter, e);
            continue;
        }
        if (exports_of(ctx, p, &exports) < 0)
            return err_oom(e);
        r = append(reply, filter, plugin_new(ctx, p, p->id, &exports, plugin_skipped(ctx, p)), e);
    }
    return r;
}

static void introspection_plugins(struct grpc_call *call, const ProtobufCMessage *request)
{
    Pb__Introspection__PluginsResponse *reply =
        service_message_new(&pb__introspection__plugins_response__descriptor);
    struct err e = ERR_INIT;
    int r = reply ? list(grpc_call_userdata(call), (const void *)request, reply, &e) : err_oom(&e);

    service_answer(call, r, (ProtobufCMessage *)reply, &e);
}

/* RFC 9562, version 4. */
static int uuid_make(char out[UUID_LEN + 1])
{
    uint8_t b[16];
    char hex[33];

    if (getrandom(b, sizeof(b), 0) != (ssize_t)sizeof(b))
        return -EIO;
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    str_hex(b, sizeof(b), hex);
    snprintf(out, UUID_LEN + 1, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16,
             hex + 20);
    return 0;
}

/* The name of this installation, made at the first question; the lock makes two first questions
 * agree. A file that was cut short by a crash is written again. */
static int uuid_read_or_make(int fd, char out[UUID_LEN + 1])
{
    ssize_t n;
    int r;

    if (flock(fd, LOCK_EX) < 0)
        return -errno;
    n = fs_read_all(fd, out, UUID_LEN);
    if (n < 0)
        return (int)n;
    out[n] = '\0';
    if (n == UUID_LEN)
        return 0;
    r = uuid_make(out);
    if (r < 0)
        return r;
    if (lseek(fd, 0, SEEK_SET) < 0)
        return -errno;
    r = fs_write_all(fd, out, UUID_LEN);
    return r < 0 ? r : neg_errno(fdatasync(fd));
}

static int uuid_get(const char *root, char out[UUID_LEN + 1], struct err *e)
{
    _close_ int dir = -EBADF, fd = -EBADF;
    int r;

    dir = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return err_errno(e, -errno, "open %s", root);
    r = fs_mkdir_p(dir, UUID_DIR, 0700);
    if (r < 0)
        return err_errno(e, r, "make %s/%s", root, UUID_DIR);
    fd = openat(dir, UUID_DIR "/uuid", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_errno(e, -errno, "open %s/%s/uuid", root, UUID_DIR);
    r = uuid_read_or_make(fd, out);
    return r < 0 ? err_errno(e, r, "read %s/%s/uuid", root, UUID_DIR) : 0;
}

static void introspection_server(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct service_context *ctx = grpc_call_userdata(call);
    Pb__Introspection__ServerResponse reply = PB__INTROSPECTION__SERVER_RESPONSE__INIT;
    char uuid[UUID_LEN + 1];
    struct err e = ERR_INIT;
    struct stat st;

    if (uuid_get(ctx->root, uuid, &e) < 0) {
        grpc_call_finish(call, &e);
        return;
    }
    reply.uuid = uuid;
    reply.pid = (uint64_t)getpid();
    if (stat("/proc/self/ns/pid", &st) == 0)
        reply.pidns = st.st_ino;
    grpc_call_reply(call, &reply.base);
}

static const struct grpc_method methods[] = {
    {"Plugins", GRPC_UNARY, GRPC_ON_POOL, &pb__introspection__plugins_request__descriptor,
     introspection_plugins},
    {"Server", GRPC_UNARY, GRPC_ON_POOL, &google__protobuf__empty__descriptor,
     introspection_server},
};

void introspection_service_init(struct grpc_service *service, struct service_context *ctx)
{
    *service = (struct grpc_service){"containerd.services.introspection.v1.Introspection", methods,
                                     ARRAY_SIZE(methods), ctx};
}
