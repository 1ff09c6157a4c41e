/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/spec_caps.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <strings.h>

#include "base/fs.h"
#include "base/str.h"
#include "oci/spec.h"

const char *const spec_cap_names[SPEC_CAPS_KNOWN] = {
    [CAP_CHOWN] = "CAP_CHOWN",
    [CAP_DAC_OVERRIDE] = "CAP_DAC_OVERRIDE",
    [CAP_DAC_READ_SEARCH] = "CAP_DAC_READ_SEARCH",
    [CAP_FOWNER] = "CAP_FOWNER",
    [CAP_FSETID] = "CAP_FSETID",
    [CAP_KILL] = "CAP_KILL",
    [CAP_SETGID] = "CAP_SETGID",
    [CAP_SETUID] = "CAP_SETUID",
    [CAP_SETPCAP] = "CAP_SETPCAP",
    [CAP_LINUX_IMMUTABLE] = "CAP_LINUX_IMMUTABLE",
    [CAP_NET_BIND_SERVICE] = "CAP_NET_BIND_SERVICE",
    [CAP_NET_BROADCAST] = "CAP_NET_BROADCAST",
    [CAP_NET_ADMIN] = "CAP_NET_ADMIN",
    [CAP_NET_RAW] = "CAP_NET_RAW",
    [CAP_IPC_LOCK] = "CAP_IPC_LOCK",
    [CAP_IPC_OWNER] = "CAP_IPC_OWNER",
    [CAP_SYS_MODULE] = "CAP_SYS_MODULE",
    [CAP_SYS_RAWIO] = "CAP_SYS_RAWIO",
    [CAP_SYS_CHROOT] = "CAP_SYS_CHROOT",
    [CAP_SYS_PTRACE] = "CAP_SYS_PTRACE",
    [CAP_SYS_PACCT] = "CAP_SYS_PACCT",
    [CAP_SYS_ADMIN] = "CAP_SYS_ADMIN",
    [CAP_SYS_BOOT] = "CAP_SYS_BOOT",
    [CAP_SYS_NICE] = "CAP_SYS_NICE",
    [CAP_SYS_RESOURCE] = "CAP_SYS_RESOURCE",
    [CAP_SYS_TIME] = "CAP_SYS_TIME",
    [CAP_SYS_TTY_CONFIG] = "CAP_SYS_TTY_CONFIG",
    [CAP_MKNOD] = "CAP_MKNOD",
    [CAP_LEASE] = "CAP_LEASE",
    [CAP_AUDIT_WRITE] = "CAP_AUDIT_WRITE",
    [CAP_AUDIT_CONTROL] = "CAP_AUDIT_CONTROL",
    [CAP_SETFCAP] = "CAP_SETFCAP",
    [CAP_MAC_OVERRIDE] = "CAP_MAC_OVERRIDE",
    [CAP_MAC_ADMIN] = "CAP_MAC_ADMIN",
    [CAP_SYSLOG] = "CAP_SYSLOG",
    [CAP_WAKE_ALARM] = "CAP_WAKE_ALARM",
    [CAP_BLOCK_SUSPEND] = "CAP_BLOCK_SUSPEND",
    [CAP_AUDIT_READ] = "CAP_AUDIT_READ",
    [CAP_PERFMON] = "CAP_PERFMON",
    [CAP_BPF] = "CAP_BPF",
    [CAP_CHECKPOINT_RESTORE] = "CAP_CHECKPOINT_RESTORE",
};

int spec_cap_parse(const char *name, uint64_t *ret_mask, struct err *e)
{
    if (strcasecmp(name, "all") == 0) {
        *ret_mask = spec_caps_bounding();
        return 0;
    }
    for (unsigned i = 0; i < SPEC_CAPS_KNOWN; i++) {
        if (strcasecmp(name, spec_cap_names[i]) == 0 ||
            strcasecmp(name, spec_cap_names[i] + strlen("CAP_")) == 0) {
            *ret_mask = UINT64_C(1) << i;
            return 0;
        }
    }
    return err_set(e, ERR_INVALID_ARGUMENT,
                   "\"%s\" is no capability; they are called NET_ADMIN, SYS_TIME and so on, see "
                   "capabilities(7)",
                   name);
}

uint64_t spec_caps_bounding(void)
{
    const uint64_t known = (UINT64_C(1) << SPEC_CAPS_KNOWN) - 1;
    _close_ int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    char text[8192];
    ssize_t n = fd < 0 ? -1 : fs_read_all(fd, text, sizeof(text) - 1);
    const char *line;

    if (n < 0)
        return SPEC_CAPS_DEFAULT;
    text[n] = '\0';
    line = strstr(text, "\nCapBnd:");
    if (!line)
        return SPEC_CAPS_DEFAULT;
    return strtoull(line + strlen("\nCapBnd:"), NULL, 16) & known;
}
