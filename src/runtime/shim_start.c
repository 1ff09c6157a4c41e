/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/shim_start.h"

#include <ctype.h>
#include <inttypes.h>
#include <jansson.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "runtime.bootstrap.v1.pb-c.h"
#include "wire/pb.h"

/* Go programs end with 1 or 2; what a signal has ended would not do better with other input. */
#define STATUS_REFUSED_MAX 127
/* What shims of 2.3 and newer say of options: then it is the second try that tells what is wrong.
 */
#define REFUSES_OPTIONS "deprecated API"

static int take_address(const char *address, const char *protocol, int64_t version,
                        struct shim_endpoint *ret, struct err *e)
{
    if (version < 2 || version > 3)
        return err_set(e, ERR_UNIMPLEMENTED,
                       "unsupported shim version (%" PRId64 "): not implemented", version);
    if (!str_empty(protocol) && !str_eq(protocol, "ttrpc"))
        return err_set(e, ERR_UNIMPLEMENTED, "unsupported shim protocol %.32s: not implemented",
                       protocol);
    if (!address || !str_after_prefix(address, "unix:///") ||
        strlen(address) >= BUNDLE_ADDRESS_MAX || strpbrk(address, "\"\\\n"))
        return err_set(e, ERR_UNKNOWN, "the shim answered no address of a unix socket: %.200s",
                       str_or_empty(address));
    ret->address = strdup(address);
    if (!ret->address)
        return err_oom(e);
    ret->version = (int)version;
    return 0;
}

/* 1 when it is none. */
static int parse_result(const char *output, size_t n, struct shim_endpoint *ret, struct err *e)
{
    ProtobufCMessage *message = NULL;

    if (pb_unpack(&pb__bootstrap__bootstrap_result__descriptor, output, n, &message, NULL) < 0)
        return 1;
    const Pb__Bootstrap__BootstrapResult *result = (const void *)message;
    int r = str_empty(result->address)
                ? 1
                : take_address(result->address, result->protocol, result->version, ret, e);
    pb_free(message);
    return r;
}

int shim_start_parse(char *output, size_t n, struct shim_endpoint *ret, struct err *e)
{
    int r = parse_result(output, n, ret, e);
    if (r <= 0)
        return r;
    char *text = output;
    while (isspace((unsigned char)*text))
        text++;
    size_t len = strlen(text);
    while (len && isspace((unsigned char)text[len - 1]))
        text[--len] = '\0';
    json_t *root = *text == '{' ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
    if (root)
        r = take_address(json_string_value(json_object_get(root, "address")),
                         json_string_value(json_object_get(root, "protocol")),
                         json_integer_value(json_object_get(root, "version")), ret, e);
    else
        r = take_address(text, NULL, 2, ret, e);
    json_decref(root);
    return r;
}

static int pack_params(const struct shim_host *host, const struct bundle *b,
                       Google__Protobuf__Any *options, uint8_t **ret, size_t *ret_n)
{
    Pb__Bootstrap__BootstrapParams params = PB__BOOTSTRAP__BOOTSTRAP_PARAMS__INIT;
    Pb__Bootstrap__Extension extension = PB__BOOTSTRAP__EXTENSION__INIT;
    Pb__Bootstrap__Extension *extensions[] = {&extension};

    params.instance_id = b->id;
    params.namespace_ = b->ns;
    params.log_level = host->debug ? PB__BOOTSTRAP__LOG_LEVEL__LOG_LEVEL_DEBUG
                                   : PB__BOOTSTRAP__LOG_LEVEL__LOG_LEVEL_INFO;
    params.containerd_version = (char *)WHERRY_VERSION;
    params.containerd_ttrpc_address = (char *)host->ttrpc_address;
    params.containerd_grpc_address = (char *)host->grpc_address;
    params.containerd_binary = (char *)host->daemon_binary;
    if (options) {
        extension.value = options;
        params.extensions = extensions;
        params.n_extensions = ARRAY_SIZE(extensions);
    }
    return pb_pack(&params.base, ret, ret_n);
}

static int run_start(const struct shim_host *host, const char *binary, const struct bundle *b,
                     const uint8_t *input, size_t n, uint64_t deadline, struct shim_endpoint *ret,
                     int *ret_status, struct err *e)
{
    _cleanup_(buf_done) struct buf output = BUF_INIT(SHIM_OUTPUT_MAX);
    uint64_t now = clock_monotonic_ms();

    int r = shim_run_action(host, binary, b, "start", input, n, deadline > now ? deadline - now : 1,
                            &output, ret_status, e);
    if (r < 0)
        return r;
    size_t len = output.len;
    _free_ char *text = buf_take_str(&output);
    if (!text)
        return err_oom(e);
    return shim_start_parse(text, len, ret, e);
}

int shim_start(const struct shim_host *host, const char *binary, const struct bundle *b,
               const struct any *options, struct shim_endpoint *ret, struct err *e)
{
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
    _free_ uint8_t *input = NULL, *params = NULL;
    size_t n = 0;
    bool has_options = options && !any_is_empty(options);
    uint64_t deadline = clock_monotonic_ms() + host->load_timeout_ms;
    struct err second = ERR_INIT;
    int status = 0;

    if (has_options) {
        any.type_url = options->type_url;
        any.value = (ProtobufCBinaryData){.len = options->value_len, .data = options->value};
        if (pb_pack(&any.base, &input, &n) < 0)
            return err_oom(e);
    }
    ret->proc = (struct proc)PROC_NULL;
    int r = run_start(host, binary, b, input, n, deadline, ret, &status, e);
    if (r == 0 || status == 0 || status > STATUS_REFUSED_MAX)
        return r;

    log_debug("%s does not take options: %s", binary, e ? e->msg : "");
    if (pack_params(host, b, has_options ? &any : NULL, &params, &n) < 0)
        return err_oom(e);
    if (run_start(host, binary, b, params, n, deadline, ret, &status, &second) == 0) {
        err_clear(e);
        return 0;
    }
    /* Status 0 is no refusal: its answer is wrong, or it did not come to an end. */
    if (e && (status == 0 || strstr(e->msg, REFUSES_OPTIONS)))
        *e = second;
    return r;
}
