/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/lease.h"

#include <stdio.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/str.h"
#include "services.leases.v1.pb-c.h"

int lease_begin(struct cli *cli, struct lease *l, int64_t seconds, struct err *e)
{
    Pb__Leases__CreateRequest request = PB__LEASES__CREATE_REQUEST__INIT;
    Pb__Leases__CreateRequest__LabelsEntry label = PB__LEASES__CREATE_REQUEST__LABELS_ENTRY__INIT;
    Pb__Leases__CreateRequest__LabelsEntry *labels[] = {&label};
    struct timespec at = clock_realtime();
    char expire[CLOCK_RFC3339_MAX], id[sizeof(l->id)], hex[25];
    uint8_t random[12];
    int r;

    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return err_errno(e, -errno, "make a random name");
    str_hex(random, sizeof(random), hex);
    snprintf(id, sizeof(id), "wherry-%s", hex);
    at.tv_sec += seconds;
    at.tv_nsec = 0;
    clock_rfc3339(at, expire);
    label.key = (char *)"containerd.io/gc.expire";
    label.value = expire;
    request.id = id;
    request.labels = labels;
    request.n_labels = 1;
    r = rpc_start(cli, &l->rpc, "leases.v1.Leases/Create", &request.base,
                  &pb__leases__create_response__descriptor, e);
    if (r == 0)
        memcpy(l->id, id, sizeof(id));
    return r;
}

int lease_apply(struct cli *cli, struct lease *l, struct err *e)
{
    int r = rpc_wait(cli, &l->rpc, e);

    if (r == 0 && grpc_client_set_header(cli->client, "containerd-lease", l->id) < 0)
        r = err_oom(e);
    return r < 0 ? err_wrap(e, "take a lease") : 0;
}

void lease_suspend(struct cli *cli)
{
    if (cli->client)
        grpc_client_set_header(cli->client, "containerd-lease", NULL);
}

void lease_delete(struct cli *cli, struct lease *l)
{
    Pb__Leases__DeleteRequest request = PB__LEASES__DELETE_REQUEST__INIT;
    struct err e = ERR_INIT;

    if (!*l->id)
        return;
    /* Creating it may still be under way when we give up early: it must be answered first. */
    if (l->rpc.call)
        rpc_wait(cli, &l->rpc, NULL);
    rpc_done(&l->rpc);
    lease_suspend(cli);
    request.id = l->id;
    rpc_start(cli, &l->rpc, "leases.v1.Leases/Delete", &request.base,
              &google__protobuf__empty__descriptor, &e);
    *l->id = '\0';
}

void lease_end(struct cli *cli, struct lease *l)
{
    bool finishing = cli->finishing;

    cli->finishing = true;
    lease_delete(cli, l);
    if (l->rpc.call)
        rpc_wait(cli, &l->rpc, NULL);
    rpc_done(&l->rpc);
    cli->finishing = finishing;
}
