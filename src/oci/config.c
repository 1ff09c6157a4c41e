/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/config.h"

#include <fcntl.h>

#include "base/fs.h"
#include "base/str.h"
#include "oci/document.h"

void oci_config_done(struct oci_config *c)
{
    free(c->oci_version);
    free(c->root_path);
    free(c->cgroups_path);
    free(c->group);
    *c = (struct oci_config){};
}

static int copy_string(const json_t *value, char **ret)
{
    const char *s = json_string_value(value);

    if (!s)
        return 0;
    *ret = strdup(s);
    return *ret ? 0 : -ENOMEM;
}

static bool has_private_pids(const json_t *linux_part)
{
    const json_t *namespaces = json_object_get(linux_part, "namespaces");

    for (size_t i = 0; i < json_array_size(namespaces); i++) {
        const json_t *ns = json_array_get(namespaces, i);
        if (str_eq(json_string_value(json_object_get(ns, "type")), "pid"))
            return str_empty(json_string_value(json_object_get(ns, "path")));
    }
    return false;
}

static void find_root_gid(const json_t *linux_part, struct oci_config *c)
{
    const json_t *mappings = json_object_get(linux_part, "gidMappings");

    for (size_t i = 0; i < json_array_size(mappings); i++) {
        const json_t *m = json_array_get(mappings, i);
        json_int_t inside = json_integer_value(json_object_get(m, "containerID"));
        json_int_t host = json_integer_value(json_object_get(m, "hostID"));
        json_int_t size = json_integer_value(json_object_get(m, "size"));
        if (inside == 0 && size > 0 && host >= 0 && host <= INT32_MAX) {
            c->has_root_gid = true;
            c->root_gid = (uint32_t)host;
            return;
        }
    }
}

static int read_facts(const json_t *root, struct oci_config *c)
{
    const json_t *linux_part = json_object_get(root, "linux");
    const json_t *annotations = json_object_get(root, "annotations");
    const json_t *group = json_object_get(annotations, "io.containerd.runc.v2.group");

    if (str_empty(json_string_value(group)))
        group = json_object_get(annotations, "io.kubernetes.cri.sandbox-id");
    c->terminal = json_is_true(json_object_get(json_object_get(root, "process"), "terminal"));
    c->has_private_pids = has_private_pids(linux_part);
    find_root_gid(linux_part, c);

    if (copy_string(json_object_get(root, "ociVersion"), &c->oci_version) < 0 ||
        copy_string(json_object_get(json_object_get(root, "root"), "path"), &c->root_path) < 0 ||
        copy_string(json_object_get(linux_part, "cgroupsPath"), &c->cgroups_path) < 0)
        return -ENOMEM;
    if (!str_empty(json_string_value(group)) && copy_string(group, &c->group) < 0)
        return -ENOMEM;
    return 0;
}

int oci_config_parse(const char *json, size_t n, struct oci_config *ret, struct err *e)
{
    _cleanup_(oci_config_done) struct oci_config c = {};
    _json_ json_t *root = NULL;

    int r = document_parse(json, n, OCI_CONFIG_MAX, "config.json", &root, e);
    if (r < 0)
        return r;
    if (read_facts(root, &c) < 0)
        return err_oom(e);
    *ret = c;
    c = (struct oci_config){};
    return 0;
}

int oci_config_load(const char *bundle, struct oci_config *ret, struct err *e)
{
    _free_ char *path = fs_join(bundle, "config.json");
    _free_ char *json = NULL;
    size_t n = 0;

    if (!path)
        return err_oom(e);
    int r = fs_read_file(AT_FDCWD, path, OCI_CONFIG_MAX, &json, &n);
    if (r == -ENOENT)
        return err_set(e, ERR_NOT_FOUND, "no config.json in bundle %s: not found", bundle);
    if (r < 0)
        return err_errno(e, r, "failed to read %s", path);
    return oci_config_parse(json, n, ret, e);
}
