/* SPDX-License-Identifier: Apache-2.0 */
#include "service/mount_message.h"

#include "base/str.h"
#include "service/context.h"
#include "wire/pb.h"

static Pb__Types__Mount *message_new(const struct mount *from)
{
    Pb__Types__Mount *m = service_message_new(&pb__types__mount__descriptor);
    size_t n = strv_len(from->options);

    if (!m || !service_set_string(&m->type, from->type) ||
        !service_set_string(&m->source, from->source) ||
        !service_set_string(&m->target, from->target) ||
        !(m->options = calloc(n + 1, sizeof(*m->options))))
        goto oom;
    for (; m->n_options < n; m->n_options++) {
        if (!service_set_string(&m->options[m->n_options], from->options[m->n_options]))
            goto oom;
    }
    return m;
oom:
    pb_free((ProtobufCMessage *)m);
    return NULL;
}

int mount_message_new_list(const struct mount_list *from, Pb__Types__Mount ***ret, size_t *ret_n)
{
    Pb__Types__Mount **all = calloc(from->n + 1, sizeof(*all));

    if (!all)
        return -ENOMEM;
    for (size_t i = 0; i < from->n; i++) {
        all[i] = message_new(&from->mounts[i]);
        if (all[i])
            continue;
        while (i > 0)
            pb_free(&all[--i]->base);
        free(all);
        return -ENOMEM;
    }
    *ret = all;
    *ret_n = from->n;
    return 0;
}

static int add(const Pb__Types__Mount *from, struct mount_list *to)
{
    _cleanup_(strv_freep) char **options = NULL;
    int r = 0;

    for (size_t i = 0; i < from->n_options && r >= 0; i++)
        r = strv_push(&options, from->options[i]);
    if (r < 0)
        return r;
    return mount_list_add(to, from->type, from->source, *from->target ? from->target : NULL,
                          options);
}

int mount_message_read_list(Pb__Types__Mount *const *from, size_t n, struct mount_list *ret,
                            struct err *e)
{
    struct mount_list l = {};
    int r = 0;

    for (size_t i = 0; i < n && r >= 0; i++)
        r = add(from[i], &l);
    if (r < 0) {
        mount_list_done(&l);
        if (r == -ENOBUFS)
            return err_set(e, ERR_INVALID_ARGUMENT, "more than %d mounts: invalid argument",
                           MOUNT_LIST_MAX);
        return err_oom(e);
    }
    *ret = l;
    return 0;
}
