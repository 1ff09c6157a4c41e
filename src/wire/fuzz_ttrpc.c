/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both ends of ttrpc against any bytes. The first byte chooses: bit 0 the server or the client, the
 * rest into how large pieces the bytes are cut.
 */
#include "base/event.h"
#include "base/fs.h"
#include "base/sock.h"
#include "task.v2.pb-c.h"
#include "wire/pb.h"
#include "wire/ttrpc.h"
#include "wire/ttrpc_client.h"
#include "wire/ttrpc_server.h"

#define PARKED_MAX 64
#define TURNS_MAX 4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct parking {
    struct ttrpc_call *calls[PARKED_MAX];
    size_t n;
};

static void state(struct ttrpc_call *call, const ProtobufCMessage *request)
{
    const Pb__Task__StateRequest *m = (const Pb__Task__StateRequest *)request;
    Pb__Task__StateResponse reply = PB__TASK__STATE_RESPONSE__INIT;

    reply.id = m->id;
    reply.exec_id = m->exec_id;
    ttrpc_call_metadata(call, "containerd-namespace-ttrpc");
    ttrpc_call_timeout_ms(call);
    ttrpc_call_reply(call, &reply.base);
}

static void wait_call(struct ttrpc_call *call, _unused_ const ProtobufCMessage *request)
{
    struct parking *parking = ttrpc_call_userdata(call);
    struct err e = ERR_INIT;

    if (parking->n < PARKED_MAX)
        parking->calls[parking->n++] = call;
    else
        ttrpc_call_fail(call, &e);
}

static const struct ttrpc_method methods[] = {
    {.name = "State", .request = &pb__task__state_request__descriptor, .handle = state},
    {.name = "Wait", .request = &pb__task__wait_request__descriptor, .handle = wait_call},
};
static const struct ttrpc_service services[] = {
    {.name = "containerd.task.v2.Task", .methods = methods, .n_methods = ARRAY_SIZE(methods)},
};

/* What comes back is read and dropped: it must be well-formed frames. */
static void drain(int fd, struct ttrpc_decoder *d)
{
    struct ttrpc_frame f;

    for (;;) {
        uint8_t *space;
        size_t n_space;
        if (ttrpc_decoder_space(d, &space, &n_space) < 0)
            abort();
        ssize_t n = read(fd, space, n_space);
        if (n <= 0)
            return;
        ttrpc_decoder_fed(d, (size_t)n);
        while (ttrpc_decoder_next(d, &f) > 0)
            if (f.oversize || (f.type != TTRPC_RESPONSE && f.type != TTRPC_REQUEST) || f.flags)
                abort();
    }
}

static void play(struct event_loop *loop, int fd, const uint8_t *data, size_t size, size_t step)
{
    struct ttrpc_decoder d;

    ttrpc_decoder_init(&d);
    while (size > 0) {
        size_t n = MIN_OF(size, step);
        if (write(fd, data, n) != (ssize_t)n)
            break;
        data += n;
        size -= n;
        event_loop_turn(loop, 0);
        drain(fd, &d);
    }
    for (int i = 0; i < TURNS_MAX; i++)
        event_loop_turn(loop, 0);
    drain(fd, &d);
    ttrpc_decoder_done(&d);
}

static void play_server(struct event_loop *loop, int pair[2], const uint8_t *data, size_t size,
                        size_t step)
{
    struct parking parking = {.n = 0};
    Pb__Task__WaitResponse reply = PB__TASK__WAIT_RESPONSE__INIT;
    struct ttrpc_server *s;

    if (ttrpc_server_new(loop, -EBADF, services, ARRAY_SIZE(services), &parking, &s, NULL) < 0)
        abort();
    if (ttrpc_server_add(s, TAKE_FD(pair[1]), NULL) < 0)
        abort();
    play(loop, pair[0], data, size, step);
    /* Half before the server goes, half after. */
    for (size_t i = 0; i < parking.n; i += 2)
        ttrpc_call_reply(parking.calls[i], &reply.base);
    ttrpc_server_free(s);
    for (size_t i = 1; i < parking.n; i += 2)
        ttrpc_call_reply(parking.calls[i], &reply.base);
}

static void count_reply(void *userdata, const struct err *e, const uint8_t *payload, size_t n)
{
    size_t *answered = userdata;

    (*answered)++;
    if (!e && n > 0) {
        ProtobufCMessage *m;
        if (pb_unpack(&pb__task__state_response__descriptor, payload, n, &m, NULL) == 0)
            pb_free(m);
    }
}

static void play_client(struct event_loop *loop, int pair[2], const uint8_t *data, size_t size,
                        size_t step)
{
    enum { CALLS = 5 };
    struct ttrpc_client *c;
    size_t answered = 0;

    if (ttrpc_client_new(loop, TAKE_FD(pair[1]), NULL, NULL, &c, NULL) < 0)
        abort();
    for (int i = 0; i < CALLS; i++)
        if (ttrpc_client_call_raw(c, "containerd.task.v2.Task", "State", "ns", "\x0a\x01x", 3, 0,
                                  count_reply, &answered, NULL) < 0)
            abort();
    play(loop, pair[0], data, size, step);
    ttrpc_client_free(c);
    if (answered != CALLS) /* each exactly once, whatever the peer says */
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct event_loop loop;
    int pair[2];

    if (size == 0 || size > 65536)
        return 0;
    size_t step = (size_t)(data[0] >> 1) * 7 + 1;
    if (event_loop_init(&loop) < 0 || sock_pair(pair) < 0 || fs_set_nonblock(pair[0], true) < 0)
        abort();
    signal(SIGPIPE, SIG_IGN);
    if (data[0] & 1)
        play_client(&loop, pair, data + 1, size - 1, step);
    else
        play_server(&loop, pair, data + 1, size - 1, step);
    close_fd(&pair[0]);
    close_fd(&pair[1]);
    event_loop_done(&loop);
    return 0;
}
