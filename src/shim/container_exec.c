/* SPDX-License-Identifier: Apache-2.0 */
/* The processes that clients add to a container: recorded here, run by process_start.c. */
#include <jansson.h>

#include "base/identifier.h"
#include "base/str.h"
#include "events.pb-c.h"
#include "shim/container.h"
#include "shim/topics.h"

#define SPEC_MAX (4u << 20)

/* The request's terminal counts, whatever the document says. */
static int make_spec(const struct container_exec *request, char **ret, struct err *e)
{
    json_error_t why;

    if (request->spec_len > SPEC_MAX)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "exec spec is larger than %u bytes: invalid argument", SPEC_MAX);
    json_t *spec = json_loadb(request->spec, request->spec_len, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(spec)) {
        json_decref(spec);
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "exec spec is not a JSON object: %s: invalid argument", why.text);
    }
    if (json_is_true(json_object_get(spec, "terminal")) != request->terminal)
        json_object_set_new(spec, "terminal", json_boolean(request->terminal));
    char *text = json_dumps(spec, JSON_COMPACT);
    json_decref(spec);
    if (!text)
        return err_oom(e);
    *ret = text;
    return 0;
}

static int check_exec(const struct container *c, const struct container_exec *request,
                      struct err *e)
{
    if (identifier_validate(request->exec_id, e) < 0)
        return ERR_RETURN;
    if (map_get(&c->execs, request->exec_id) || str_eq(request->exec_id, c->id))
        return err_set(e, ERR_ALREADY_EXISTS, "id %s: already exists", request->exec_id);
    if (process_is_paused(c->init) || c->init->state == PROCESS_STOPPED ||
        c->init->state == PROCESS_DELETED)
        return process_refuse(c->init, "exec", e);
    if (c->execs.n >= CONTAINER_EXECS_MAX)
        return err_set(e, ERR_RESOURCE_EXHAUSTED, "container %s has %d execs already", c->id,
                       CONTAINER_EXECS_MAX);
    return 0;
}

int container_exec(struct container *c, const struct container_exec *request, struct err *e)
{
    Pb__Event__TaskExecAdded event = PB__EVENT__TASK_EXEC_ADDED__INIT;
    _free_ char *spec = NULL;

    if (check_exec(c, request, e) < 0 || make_spec(request, &spec, e) < 0)
        return ERR_RETURN;
    struct process *p = process_new(c, request->exec_id);
    if (!p ||
        process_set_streams(p, request->terminal, request->stdin_path, request->stdout_path,
                            request->stderr_path) < 0 ||
        map_add(&c->execs, request->exec_id, p) < 0) {
        process_unref(p);
        return err_oom(e);
    }
    p->spec = TAKE(spec);
    event.container_id = c->id;
    event.exec_id = p->exec_id;
    container_publish(c, TOPIC_EXEC_ADDED, &event.base);
    return 0;
}

void container_remove_exec(struct container *c, struct process *p)
{
    if (map_get(&c->execs, p->exec_id) != p)
        return;
    map_remove(&c->execs, p->exec_id);
    process_unref(p);
}
