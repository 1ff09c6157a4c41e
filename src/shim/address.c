/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/address.h"

#include <fcntl.h>

#include "base/fs.h"
#include "base/sock.h"
#include "base/str.h"
#include "oci/sha256.h"

char *address_path(const char *dir, const char *daemon_address, const char *namespace_,
                   const char *group)
{
    uint8_t digest[SHA256_SIZE];
    char hex[2 * SHA256_SIZE + 1];
    /* Joined as Go's filepath.Join does it: an empty first part leaves no slash. */
    _free_ char *joined = str_empty(daemon_address)
                              ? str_printf("%s/%s", namespace_, group)
                              : str_printf("%s/%s/%s", daemon_address, namespace_, group);
    _free_ char *clean = joined ? fs_clean_path(joined) : NULL;

    if (!clean)
        return NULL;
    sha256(clean, strlen(clean), digest);
    str_hex(digest, sizeof(digest), hex);
    return fs_join(str_empty(dir) ? ADDRESS_DIR : dir, hex);
}

const char *address_to_path(const char *address)
{
    const char *path = str_after_prefix(address, ADDRESS_PREFIX);
    return path ? path : address;
}

int address_check_daemon(const char *address, struct err *e)
{
    const char *path = address_to_path(str_or_empty(address));

    if (str_empty(path))
        return 0;
    if (path[0] != '/')
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "TTRPC_ADDRESS \"%.200s\" is not the path of a unix socket", address);
    if (strlen(path) > SOCK_PATH_MAX)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "TTRPC_ADDRESS %.200s is too long: a socket's path has at most %d bytes",
                       path, SOCK_PATH_MAX);
    return 0;
}

int address_write(const char *bundle, const char *path)
{
    _free_ char *file = fs_join(bundle, "address");
    _free_ char *text = str_printf(ADDRESS_PREFIX "%s", path);

    if (!file || !text)
        return -ENOMEM;
    return fs_write_file_atomic(AT_FDCWD, file, text, strlen(text), 0644, false);
}

int address_read(const char *bundle, char **ret_path)
{
    _free_ char *file = fs_join(bundle, "address");
    _free_ char *text = NULL;
    size_t n;

    if (!file)
        return -ENOMEM;
    int r = fs_read_file(AT_FDCWD, file, 4096, &text, &n);
    if (r < 0)
        return r;
    text[strcspn(text, "\n")] = '\0';
    const char *path = address_to_path(text);
    if (path[0] != '/' || strlen(path) > SOCK_PATH_MAX)
        return -EBADMSG;
    char *copy = strdup(path);
    if (!copy)
        return -ENOMEM;
    *ret_path = copy;
    return 0;
}
