/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/answer.h"

#include "base/str.h"
#include "google/protobuf/empty.pb-c.h"
#include "wire/pb.h"

void answer_empty(struct ttrpc_call *call)
{
    Google__Protobuf__Empty empty = GOOGLE__PROTOBUF__EMPTY__INIT;

    ttrpc_call_reply(call, &empty.base);
}

void answer_error(struct ttrpc_call *call, enum err_code code, const char *text)
{
    struct err e = ERR_INIT;

    err_set(&e, code, "%s", text);
    ttrpc_call_fail(call, &e);
}

void answer_done(void *userdata, const struct err *e)
{
    struct ttrpc_call *call = userdata;

    if (e)
        ttrpc_call_fail(call, e);
    else
        answer_empty(call);
}

struct answer *answer_new(struct ttrpc_call *call, struct process *p, const char *id)
{
    struct answer *a = calloc(1, sizeof(*a));
    char *copy = id ? strdup(id) : NULL;
    struct err e = ERR_INIT;

    if (!a || (id && !copy)) {
        free(a);
        free(copy);
        err_oom(&e);
        ttrpc_call_fail(call, &e);
        return NULL;
    }
    *a = (struct answer){.call = call, .process = p ? process_ref(p) : NULL, .id = copy};
    return a;
}

void answer_free(struct answer *a)
{
    for (size_t i = 0; i < a->n_infos; i++)
        pb_free(&a->infos[i]->base);
    free(a->infos);
    process_unref(a->process);
    free(a->id);
    free(a->pids.pids);
    free(a);
}

bool answer_has_ended(const struct process *p)
{
    return p->state == PROCESS_STOPPED || p->state == PROCESS_DELETED;
}

Pb__V1types__Status answer_status(const struct process *p)
{
    switch (p->state) {
    case PROCESS_CREATING:
    case PROCESS_CREATED:
        return PB__V1TYPES__STATUS__CREATED;
    case PROCESS_RUNNING:
        /* Pausing freezes the whole container. */
        return !process_is_init(p) && process_is_paused(p->container->init)
                   ? answer_status(p->container->init)
                   : PB__V1TYPES__STATUS__RUNNING;
    case PROCESS_PAUSING:
        return PB__V1TYPES__STATUS__PAUSING;
    case PROCESS_PAUSED:
        return PB__V1TYPES__STATUS__PAUSED;
    case PROCESS_STOPPED:
    case PROCESS_DELETED:
        return PB__V1TYPES__STATUS__STOPPED;
    }
    return PB__V1TYPES__STATUS__UNKNOWN;
}

int answer_describe_pids(struct answer *a, answer_describe_fn describe, struct err *e)
{
    a->infos = calloc(MAX_OF(a->pids.n, (size_t)1), sizeof(Pb__V1types__ProcessInfo *));
    if (!a->infos)
        return err_oom(e);
    for (; a->n_infos < a->pids.n; a->n_infos++) {
        Pb__V1types__ProcessInfo *info = malloc(sizeof(*info));
        if (!info)
            return err_oom(e);
        pb__v1types__process_info__init(info);
        info->pid = a->pids.pids[a->n_infos];
        info->info = describe(a->process->container, info->pid);
        a->infos[a->n_infos] = info;
    }
    return 0;
}

int answer_take_mounts(Pb__Types__Mount *const *mounts, size_t n, const char *what,
                       struct mount_list *ret, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        const Pb__Types__Mount *m = mounts[i];
        char **options = NULL;
        int r = 0;
        for (size_t j = 0; j < m->n_options && r == 0; j++)
            r = strv_push(&options, m->options[j]);
        if (r == 0)
            r = mount_list_add(ret, m->type, m->source, m->target, options);
        strv_free(options);
        if (r < 0)
            return err_errno(e, r, "failed to take the rootfs of %.100s", what);
    }
    return 0;
}
