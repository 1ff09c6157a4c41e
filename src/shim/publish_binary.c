/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/publish_binary.h"

#include <fcntl.h>
#include <sys/mman.h>

#include "base/fs.h"
#include "services.events.ttrpc.v1.pb-c.h"
#include "shim/runtime_call.h"

#define OUTPUT_MAX 1024

static void on_ended(struct child *child, int status)
{
    struct publish_binary *b = container_of(child, struct publish_binary, child);
    char output[OUTPUT_MAX], clean[OUTPUT_MAX];
    struct err e = ERR_INIT;

    event_timer_disarm(&b->timer);
    ssize_t n = status != 0 ? pread(b->output_fd, output, sizeof(output), 0) : 0;
    close_fd(&b->output_fd);
    if (status == 0) {
        publisher_sent(b->publisher, NULL);
        return;
    }
    runtime_clean_text(output, n > 0 ? (size_t)n : 0, clean, sizeof(clean));
    err_set(&e, ERR_UNAVAILABLE, "failed to publish event: %s", clean);
    publisher_sent(b->publisher, &e);
}

static void on_timeout(struct event_timer *timer)
{
    struct publish_binary *b = container_of(timer, struct publish_binary, timer);

    proc_kill(&b->child.proc, SIGKILL);
}

/* A file to be read from its start. */
static int input_file(const void *request, size_t n)
{
    Pb__Eventsttrpc__ForwardRequest *r = pb__eventsttrpc__forward_request__unpack(NULL, n, request);
    _close_ int fd = neg_errno(memfd_create("event", MFD_CLOEXEC));
    _free_ uint8_t *packed = NULL;
    int e = -ENOMEM;

    if (r && fd >= 0) {
        size_t size = google__protobuf__any__get_packed_size(r->envelope->event);
        packed = malloc(size);
        if (packed) {
            google__protobuf__any__pack(r->envelope->event, packed);
            e = fs_write_all(fd, packed, size);
        }
    }
    if (r)
        pb__eventsttrpc__forward_request__free_unpacked(r, NULL);
    if (e == 0 && lseek(fd, 0, SEEK_SET) < 0)
        e = -errno;
    return e < 0 ? e : TAKE_FD(fd);
}

static int publish_binary_send(void *userdata, struct publisher *p, const char *topic,
                               const void *request, size_t n, struct err *e)
{
    struct publish_binary *b = userdata;
    _cleanup_(proc_done) struct proc proc = PROC_NULL;
    _close_ int input_fd = -EBADF;
    _free_ char *path = NULL;

    if (runtime_find(b->binary, &path, e) < 0)
        return ERR_RETURN;
    input_fd = input_file(request, n);
    b->output_fd = neg_errno(memfd_create("output", MFD_CLOEXEC));
    if (input_fd < 0 || b->output_fd < 0) {
        close_fd(&b->output_fd);
        return err_set(e, ERR_UNAVAILABLE, "failed to make the input of %s", path);
    }
    const char *const argv[] = {path,  "--address",   b->address,    "publish", "--topic",
                                topic, "--namespace", b->namespace_, NULL};
    const int fds[] = {input_fd, b->output_fd, b->output_fd};
    const struct proc_spawn s = {
        .path = path, .exec_fd = -EBADF, .argv = argv, .fds = fds, .n_fds = ARRAY_SIZE(fds)};
    int r = proc_spawn(&s, &proc);
    if (r == 0)
        r = reaper_watch(b->reaper, &b->child, &proc, on_ended);
    if (r < 0) {
        close_fd(&b->output_fd);
        return err_errno(e, r, "failed to start %s", path);
    }
    b->publisher = p;
    event_timer_arm(b->reaper->loop, &b->timer, PUBLISH_BINARY_TIMEOUT_MS, on_timeout);
    return 0;
}

static void publish_binary_idle(void *userdata)
{
}

const struct publisher_transport publish_binary_transport = {
    .send = publish_binary_send,
    .idle = publish_binary_idle,
};

void publish_binary_init(struct publish_binary *b, struct reaper *reaper, const char *binary,
                         const char *address, const char *namespace_)
{
    *b = (struct publish_binary){
        .reaper = reaper,
        .binary = binary,
        .address = address,
        .namespace_ = namespace_,
        .child = CHILD_INIT,
        .output_fd = -EBADF,
    };
}
