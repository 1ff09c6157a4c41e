/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/runtime_choice.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>

#include "base/fs.h"
#include "base/proc.h"
#include "base/str.h"

#define CONTROLLERS_MAX 4096
#define CGROUP_OF_SELF_MAX 65536

void runtime_facts_done(struct runtime_facts *f)
{
    free(f->crun);
    free(f->runc);
    *f = (struct runtime_facts){};
}

void runtime_choice_done(struct runtime_choice *c)
{
    free(c->path);
    free(c->why);
    *c = (struct runtime_choice){};
}

static int has_split_cgroups(const char *root, bool *ret)
{
    struct statfs fs;
    _free_ char *controllers = NULL;
    _free_ char *path = str_printf("%s/unified/cgroup.controllers", root);
    size_t n;

    if (!path)
        return -ENOMEM;
    *ret = false;
    if (statfs(root, &fs) == 0 && fs.f_type == CGROUP2_SUPER_MAGIC)
        return 0;
    int r = fs_read_file(AT_FDCWD, path, CONTROLLERS_MAX, &controllers, &n);
    if (r == -ENOMEM)
        return r;
    *ret = r >= 0 && controllers[strspn(controllers, " \n")] != '\0';
    return 0;
}

static bool is_cgroup(const char *path)
{
    struct statfs fs;
    return statfs(path, &fs) == 0 && fs.f_type == CGROUP_SUPER_MAGIC;
}

/* Lines are "hierarchy:controllers:path", cgroups(7); those of cgroup v2 and of named hierarchies
 * have no controllers of ours to miss. */
static int has_unmounted_cgroups(const char *root, const char *of_self, bool *ret)
{
    _free_ char *text = NULL;
    size_t n;

    *ret = false;
    int r = fs_read_file(AT_FDCWD, of_self, CGROUP_OF_SELF_MAX, &text, &n);
    if (r < 0)
        return r == -ENOMEM ? r : 0;
    for (char *rest = text, *line; (line = strsep(&rest, "\n")) && !*ret;) {
        strsep(&line, ":");
        const char *controllers = strsep(&line, ":");
        if (str_empty(controllers) || str_after_prefix(controllers, "name="))
            continue;
        _free_ char *path = fs_join(root, controllers);
        if (!path)
            return -ENOMEM;
        *ret = !is_cgroup(path);
    }
    return 0;
}

int runtime_facts_find(const char *search_path, const char *cgroup_root, const char *cgroup_of_self,
                       struct runtime_facts *ret)
{
    const char *root = cgroup_root ? cgroup_root : "/sys/fs/cgroup";
    const char *of_self = cgroup_of_self ? cgroup_of_self : "/proc/self/cgroup";
    _cleanup_(runtime_facts_done) struct runtime_facts f = {};

    if (proc_find_program("crun", search_path, &f.crun) == -ENOMEM ||
        proc_find_program("runc", search_path, &f.runc) == -ENOMEM)
        return -ENOMEM;
    int r = has_split_cgroups(root, &f.has_split_cgroups);
    if (r >= 0)
        r = has_unmounted_cgroups(root, of_self, &f.has_unmounted_cgroups);
    if (r < 0)
        return r;
    *ret = f;
    f = (struct runtime_facts){};
    return 0;
}

/* "1.0", "1.0.2", "1.0.2-dev", "1.0.0-rc5" */
static bool is_version_1_0(const char *version)
{
    const char *rest = str_after_prefix(version, "1.0");
    return rest && (*rest == '\0' || *rest == '.' || *rest == '-');
}

int runtime_choice_make(const struct runtime_facts *f, const char *oci_version,
                        struct runtime_choice *ret, struct err *e)
{
    const char *against = NULL;
    const char *path;
    char *why;

    if (!f->crun && !f->runc)
        return err_set(e, ERR_NOT_FOUND,
                       "no OCI runtime found: install crun or runc, or name one in the runtime "
                       "options: executable file not found in $PATH");
    if (f->has_split_cgroups)
        against = "the cgroup hierarchy is hybrid and some controllers are left on cgroup v2";
    else if (f->has_unmounted_cgroups)
        against = "a cgroup v1 hierarchy is in use that is not mounted below /sys/fs/cgroup";
    else if (oci_version && !is_version_1_0(oci_version))
        against = "the configuration is of an ociVersion newer than 1.0";

    if (!f->crun) {
        path = f->runc;
        why = str_printf("using %s: crun is not installed", path);
    } else if (!against) {
        path = f->crun;
        why = str_printf("using %s: it is installed and can run this container", path);
    } else if (f->runc) {
        path = f->runc;
        why = str_printf("using %s and not crun: %s", path, against);
    } else {
        path = f->crun;
        why = str_printf("using %s, the only one installed, although %s", path, against);
    }
    char *copy = strdup(path);
    if (!copy || !why) {
        free(copy);
        free(why);
        return err_oom(e);
    }
    *ret = (struct runtime_choice){.path = copy, .why = why};
    return 0;
}
