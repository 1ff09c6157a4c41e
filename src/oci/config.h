/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What we must know of a container's runtime configuration (config.json of a bundle, OCI runtime
 * specification): a handful of facts, read once. The OCI runtime reads the rest.
 *
 * Absent members are no error: strings are then NULL. A member of the wrong type reads as absent,
 * since judging the document is the runtime's task. Refused are documents over OCI_CONFIG_MAX
 * bytes, nested deeper than documents may be (oci/document.h), with duplicate keys, or that are no
 * JSON object.
 */
#pragma once

#include "base/err.h"

#define OCI_CONFIG_MAX (20u << 20)

struct oci_config {
    char *oci_version;  /* "ociVersion" */
    char *root_path;    /* "root.path" */
    char *cgroups_path; /* "linux.cgroupsPath" */
    /* Containers with the same group share a shim: annotation io.containerd.runc.v2.group, else
     * io.kubernetes.cri.sandbox-id. */
    char *group;
    bool terminal; /* "process.terminal" */
    /* The container has a pid namespace of its own, so that the kernel ends everything in it when
     * its init ends: a namespace of type pid without a path. */
    bool has_private_pids;
    bool has_root_gid; /* container gid 0 is mapped to root_gid of the host */
    uint32_t root_gid;
};

void oci_config_done(struct oci_config *c);
/* Of n bytes. ERR_INVALID_ARGUMENT, ERR_RESOURCE_EXHAUSTED over the limit. */
int oci_config_parse(const char *json, size_t n, struct oci_config *ret, struct err *e);
/* Of <bundle>/config.json. ERR_NOT_FOUND, ERR_INVALID_ARGUMENT, ERR_UNKNOWN with the errno. */
int oci_config_load(const char *bundle, struct oci_config *ret, struct err *e);
