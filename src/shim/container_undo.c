/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The undoing of a create or restore that failed half way, or whose OCI runtime was killed: it may
 * have left anything. First whoever still works at it is ended, or the rest would be undone under
 * its hands and made again; then the OCI runtime deletes what it knows of; then what that has not
 * ended is ended: it may know nothing of a process that it has started.
 */
#include "base/log.h"
#include "shim/container.h"
#include "shim/container_end.h"
#include "shim/strays.h"

static void on_deleted(void *userdata, const struct err *e, const char *output)
{
    struct op *op = userdata;
    struct container *c = op->process->container;
    struct child *init = &op->process->child;

    if (e)
        log_debug("container %s: %s", c->id, e->msg);
    if (child_is_alive(init))
        proc_kill(&init->proc, SIGKILL);
    reaper_forget(init);
    strays_end(op, op->undone);
}

static void delete_made(struct op *op)
{
    container_unmount_state(op->process->container);
    container_call_delete(op, true, on_deleted);
}

void container_undo_launch(struct op *op, op_fn fn)
{
    op->undone = fn;
    strays_end(op, delete_made);
}
