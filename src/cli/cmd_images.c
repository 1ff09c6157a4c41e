/* SPDX-License-Identifier: Apache-2.0 */
/* images, import, rmi. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/str.h"
#include "cli/command.h"
#include "cli/image.h"
#include "cli/import.h"
#include "cli/json_out.h"
#include "cli/lease.h"
#include "cli/table.h"
#include "oci/reference.h"

#define LEASE_SECONDS (24 * 3600)

struct images_options {
    bool quiet;
};
static const struct flag images_flags[] = {
    {"quiet", 'q', FLAG_BOOL, offsetof(struct images_options, quiet), NULL, "names alone"},
};
static const struct flag_table images_table = FLAGS(images_flags);

struct import_options {
    const char *name, *snapshotter;
    bool no_unpack;
};
static const struct flag import_flags[] = {
    {"name", 0, FLAG_STRING, offsetof(struct import_options, name), "NAME",
     "name of the image, instead of what the archive says"},
    {"no-unpack", 0, FLAG_BOOL, offsetof(struct import_options, no_unpack), NULL,
     "leave unpacking to the first run"},
    {"snapshotter", 0, FLAG_STRING, offsetof(struct import_options, snapshotter), "NAME",
     "default " IMAGE_DEFAULT_SNAPSHOTTER},
};
static const struct flag_table import_table = FLAGS(import_flags);

struct rmi_options {
    bool sync;
};
static const struct flag rmi_flags[] = {
    {"sync", 0, FLAG_BOOL, offsetof(struct rmi_options, sync), NULL,
     "wait until the disk space is free again"},
};
static const struct flag_table rmi_table = FLAGS(rmi_flags);

/* Bytes of configuration and layers; -1 when the documents are not there. */
static int64_t size_of(struct cli *cli, const Pb__Images__Image *image)
{
    _cleanup_(image_done) struct image i = {};
    struct err ignored = ERR_INIT;
    int64_t size = 0;

    if (image_load(cli, image, &i, &ignored) < 0)
        return -1;
    size = i.manifest.config.size;
    for (size_t n = 0; n < i.manifest.n_layers; n++)
        size += i.manifest.layers[n].size;
    return size;
}

static int print_images(struct cli *cli, const Pb__Images__ListImagesResponse *list, struct err *e)
{
    static const char *const headings[] = {"IMAGE", "DIGEST", "CREATED", "SIZE"};
    _cleanup_(table_done) struct table t;
    int64_t now = clock_realtime().tv_sec;

    table_init(&t, ARRAY_SIZE(headings), headings);
    for (size_t i = 0; i < list->n_images; i++) {
        const Pb__Images__Image *image = list->images[i];
        _free_ char *familiar = reference_familiar(image->name);
        char size[TABLE_SIZE_MAX] = "", age[TABLE_AGE_MAX];
        int64_t bytes = image->target ? size_of(cli, image) : -1;

        if (cli->interrupted)
            break;
        if (bytes >= 0)
            table_format_size(bytes, size);
        table_format_age(now - pb_timestamp_get(image->created_at).tv_sec, age);
        table_cell(&t, familiar);
        table_cellf(&t, "%.19s", image->target ? image->target->digest : "");
        table_cellf(&t, "%s ago", age);
        table_cell(&t, size);
    }
    return table_print(&t, stdout) < 0 ? err_oom(e) : 0;
}

static json_t *image_json(struct cli *cli, const Pb__Images__Image *image)
{
    json_t *object = json_object(), *target = json_object();
    int64_t size = image->target ? size_of(cli, image) : -1;

    json_put(object, "name", json_text(image->name));
    if (image->target) {
        json_put(target, "mediaType", json_text(image->target->media_type));
        json_put(target, "digest", json_text(image->target->digest));
        json_put(target, "size", json_integer(image->target->size));
    }
    json_put(object, "target", target);
    json_put(object, "size", size >= 0 ? json_integer(size) : json_null());
    json_put(object, "labels", json_labels((void *const *)image->labels, image->n_labels));
    json_put(object, "createdAt", json_time(image->created_at));
    json_put(object, "updatedAt", json_time(image->updated_at));
    return object;
}

static int cmd_images(struct cli *cli, const void *options, int argc, char **argv, struct err *e)
{
    const struct images_options *o = options;
    Pb__Images__ListImagesRequest request = PB__IMAGES__LIST_IMAGES_REQUEST__INIT;
    _reply_ Pb__Images__ListImagesResponse *list = NULL;
    json_t *array;
    int r = RPC(cli, "images.v1.Images/List", &request, pb__images__list_images_response, &list, e);

    if (r < 0)
        return r;
    if (cli->json) {
        array = json_array();
        for (size_t i = 0; i < list->n_images; i++)
            json_array_append_new(array, image_json(cli, list->images[i]));
        return json_print(array, e);
    }
    if (!o->quiet)
        return print_images(cli, list, e);
    for (size_t i = 0; i < list->n_images; i++) {
        _free_ char *name = table_escape(list->images[i]->name);
        printf("%s\n", str_or_empty(name));
    }
    return 0;
}

static int store_image(struct cli *cli, const struct import_image *image,
                       const struct import_options *o, struct err *e)
{
    _reply_ Pb__Images__GetImageResponse *reply = NULL;
    _cleanup_(image_done) struct image loaded = {};
    _free_ char *shown = reference_familiar(image->name);
    _free_ char *escaped = shown ? table_escape(shown) : NULL;
    uint64_t start = clock_monotonic_ms();
    char size[TABLE_SIZE_MAX];
    int64_t bytes = 0;
    int r = import_store(cli, image, e);

    if (r == 0)
        r = image_get(cli, image->name, &reply, e);
    if (r == 0)
        r = image_load(cli, reply->image, &loaded, e);
    if (r == 0 && !o->no_unpack)
        r = image_unpack(cli, &loaded, image_snapshotter(o->snapshotter), e);
    if (r < 0)
        return r;
    if (cli->json) {
        json_t *object = json_object();
        json_put(object, "name", json_text(image->name));
        json_put(object, "digest", json_text(image->target.digest));
        json_put(object, "chainId", json_text(loaded.chain_id));
        json_put(object, "unpacked", json_boolean(!o->no_unpack));
        return json_print_line(object, e);
    }
    for (size_t n = 0; n < loaded.manifest.n_layers; n++)
        bytes += loaded.manifest.layers[n].size;
    table_format_size(bytes, size);
    printf("%s %s, %zu layer%s, %s", o->no_unpack ? "imported" : "imported and unpacked",
           str_or_empty(escaped), loaded.manifest.n_layers,
           loaded.manifest.n_layers == 1 ? "" : "s", size);
    if (!o->no_unpack)
        printf(" (unpacked in %.2f s)", (double)(clock_monotonic_ms() - start) / 1000);
    printf("\n");
    return 0;
}

static int import_archive(struct cli *cli, const struct import_options *o, int fd,
                          const char *ref_prefix, struct err *e)
{
    _cleanup_(archive_done) struct archive archive = {};
    _cleanup_(import_done) struct import import = {
        .cli = cli,
        .archive = &archive,
        .name = o->name,
        .ref_prefix = ref_prefix,
    };
    int r = archive_read(&archive, cli, fd, ref_prefix, e);

    if (r == 0)
        r = import_interpret(&import, e);
    for (size_t i = 0; i < import.n && r == 0; i++)
        r = store_image(cli, &import.images[i], o, e);
    return r;
}

static int cmd_import(struct cli *cli, const void *options, int argc, char **argv, struct err *e)
{
    const struct import_options *o = options;
    struct lease lease = LEASE_INIT;
    _close_ int file = -EBADF;
    _free_ char *checked = NULL;
    char prefix[sizeof(lease.id) + 8];
    bool is_stdin = str_eq(argv[0], "-");
    int r = 0;

    if (o->name)
        r = reference_normalise(o->name, &checked, e);
    if (r < 0)
        return err_wrap(e, "--name");
    if (is_stdin && isatty(STDIN_FILENO))
        return err_set(
            e, ERR_INVALID_ARGUMENT,
            "standard input is a terminal, not an archive; write \"wherry import - <FILE\"");
    if (!is_stdin)
        file = neg_errno(open(argv[0], O_RDONLY | O_CLOEXEC));
    if (!is_stdin && file < 0)
        return err_errno(e, file, "open the archive %s", argv[0]);
    r = cli_catch_signals(cli, e);
    if (r == 0)
        r = lease_begin(cli, &lease, LEASE_SECONDS, e);
    if (r < 0)
        return r;
    snprintf(prefix, sizeof(prefix), "import-%s", lease.id);
    r = lease_apply(cli, &lease, e);
    if (r == 0) {
        r = import_archive(cli, o, is_stdin ? STDIN_FILENO : file, prefix, e);
        if (r < 0 && e->code != ERR_CANCELED)
            err_wrap(e, "import %s", is_stdin ? "standard input" : argv[0]);
    }
    lease_end(cli, &lease);
    return r;
}

static int remove_image(struct cli *cli, const char *name, bool sync, struct err *e)
{
    Pb__Images__DeleteImageRequest request = PB__IMAGES__DELETE_IMAGE_REQUEST__INIT;
    _reply_ Pb__Images__GetImageResponse *image = NULL;
    int r = image_get(cli, name, &image, e);

    if (r < 0)
        return r;
    request.name = image->image->name;
    request.sync = sync;
    return RPC_EMPTY(cli, "images.v1.Images/Delete", &request, e);
}

static int cmd_rmi(struct cli *cli, const void *options, int argc, char **argv, struct err *e)
{
    const struct rmi_options *o = options;
    int code = 0;

    for (int i = 0; i < argc; i++) {
        struct err failure = ERR_INIT;

        if (remove_image(cli, argv[i], o->sync, &failure) < 0)
            code = command_fail(&failure, CLI_EXIT_ERROR);
        else
            printf("%s\n", argv[i]);
    }
    return code;
}

const struct command commands_images[] = {
    {
        .name = "images",
        .usage = "[-q]",
        .summary = "list images",
        .flags = &images_table,
        .options_size = sizeof(struct images_options),
        .run = cmd_images,
    },
    {
        .name = "import",
        .usage = "[FLAGS] FILE|-",
        .summary = "take in an image archive: OCI layout or docker save, plain, gzip or zstd",
        .flags = &import_table,
        .options_size = sizeof(struct import_options),
        .min_args = 1,
        .max_args = 1,
        .run = cmd_import,
    },
    {
        .name = "rmi",
        .usage = "[--sync] IMAGE...",
        .summary = "remove images; containers made of them go on",
        .flags = &rmi_table,
        .options_size = sizeof(struct rmi_options),
        .min_args = 1,
        .max_args = -1,
        .run = cmd_rmi,
    },
    {},
};
