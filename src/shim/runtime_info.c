/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"
#include "base/fs.h"
#include "base/proc.h"
#include "base/str.h"
#include "oci/runtime_choice.h"
#include "shim/actions.h"
#include "shim/options.h"
#include "shim/runtime_call.h"
#include "types.pb-c.h"
#include "wire/pb.h"

#define FEATURES_MAX (1024 * 1024)
#define FEATURES_TIMEOUT_MS 3000
#define FEATURES_TYPE "types.containerd.io/opencontainers/runtime-spec/1/features/Features"

/* JSON of `<runtime> features`; NULL for runtimes that have no such command. The caller frees. */
static char *read_features(const Google__Protobuf__Any *any)
{
    _cleanup_(options_done) struct options options = {};
    _cleanup_(runtime_facts_done) struct runtime_facts facts = {};
    _cleanup_(runtime_choice_done) struct runtime_choice choice = {};
    _cleanup_(buf_done) struct buf output = BUF_INIT(FEATURES_MAX);
    _free_ char *path = NULL;
    int status = 0;

    options_decode(any, &options, NULL);
    if (options.binary_name && runtime_find(options.binary_name, &path, NULL) < 0)
        return NULL;
    if (!path) {
        if (runtime_facts_find(NULL, NULL, NULL, &facts) < 0 ||
            runtime_choice_make(&facts, NULL, &choice, NULL) < 0)
            return NULL;
        path = TAKE(choice.path);
    }
    const char *const argv[] = {path, "features", NULL};
    const struct proc_spawn s = {.path = path, .exec_fd = -EBADF, .argv = argv};
    if (proc_run(&s, NULL, 0, FEATURES_TIMEOUT_MS, &output, &status) < 0 || status != 0 ||
        output.len == 0 || *buf_head(&output) != '{')
        return NULL;
    return buf_take_str(&output);
}

int action_info(struct err *e)
{
    Pb__Types__RuntimeInfo info = PB__TYPES__RUNTIME_INFO__INIT;
    Pb__Types__RuntimeVersion version = PB__TYPES__RUNTIME_VERSION__INIT;
    Google__Protobuf__Any features = GOOGLE__PROTOBUF__ANY__INIT;
    _free_ uint8_t *input = NULL;
    _free_ uint8_t *packed = NULL;
    size_t n = 0;

    int r = action_read_input(ACTION_INPUT_MAX, &input, &n);
    if (r < 0) {
        err_errno(e, r, "failed to read the options on stdin");
        return EXIT_FAILURE;
    }
    Google__Protobuf__Any *any = n > 0 ? google__protobuf__any__unpack(NULL, n, input) : NULL;
    _free_ char *json = read_features(any);
    info.name = (char *)"io.containerd.wherry.v2";
    version.version = (char *)WHERRY_VERSION;
    info.version = &version;
    info.options = any;
    if (json) {
        features.type_url = (char *)FEATURES_TYPE;
        features.value.data = (uint8_t *)json;
        features.value.len = strlen(json);
        info.features = &features;
    }
    size_t size = pb__types__runtime_info__get_packed_size(&info);
    packed = malloc(MAX_OF(size, (size_t)1));
    r = packed ? 0 : -ENOMEM;
    if (r == 0) {
        pb__types__runtime_info__pack(&info, packed);
        r = fs_write_all(STDOUT_FILENO, packed, size);
    }
    pb_free(any ? &any->base : NULL);
    if (r < 0) {
        err_errno(e, r, "failed to print what this shim is");
        return EXIT_FAILURE;
    }
    return 0;
}
