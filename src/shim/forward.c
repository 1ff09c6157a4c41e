/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/forward.h"

#include "base/log.h"
#include "base/sock.h"
#include "base/str.h"
#include "wire/ttrpc_client.h"

#define SERVICE "containerd.services.events.ttrpc.v1.Events"
#define CALL_TIMEOUT_MS 5000

static void on_closed(void *userdata)
{
    struct forward *f = userdata;

    f->client = ttrpc_client_free(f->client);
}

static void on_reply(void *userdata, const struct err *e, const uint8_t *payload, size_t n)
{
    struct forward *f = userdata;

    publisher_sent(f->publisher, e);
}

static int forward_connect(struct forward *f, struct err *e)
{
    _close_ int fd = -EBADF;

    /* Local and not waited for: it succeeds at once or the daemon is away. */
    int r = sock_connect(f->path, 0, &fd);
    if (r < 0)
        return err_errno(e, r, "failed to dial \"%s\"", f->path);
    if (ttrpc_client_new(f->loop, fd, on_closed, f, &f->client, e) < 0)
        return ERR_RETURN;
    TAKE_FD(fd);
    return 0;
}

static int forward_send(void *userdata, struct publisher *p, const char *topic, const void *request,
                        size_t n, struct err *e)
{
    struct forward *f = userdata;

    f->publisher = p;
    if (!f->client && forward_connect(f, e) < 0)
        return ERR_RETURN;
    return ttrpc_client_call_raw(f->client, SERVICE, "Forward", f->namespace_, request, n,
                                 CALL_TIMEOUT_MS, on_reply, f, e);
}

static void forward_idle(void *userdata)
{
    struct forward *f = userdata;

    f->client = ttrpc_client_free(f->client);
}

const struct publisher_transport forward_transport = {
    .send = forward_send,
    .idle = forward_idle,
};

void forward_done(struct forward *f)
{
    f->client = ttrpc_client_free(f->client);
}
