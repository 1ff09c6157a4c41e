/* SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <iconv.h>
#include <jansson.h>
#include <malloc.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "worker/confine.h"
#include "worker/job.h"

#define RESULT_FD 1
#define ADDRESS_SPACE_BYTES (UINT64_C(768) << 20)
#define CPU_SECONDS 7200

enum job { JOB_APPLY, JOB_IMPORT, JOB_DIFF };

struct arguments {
    enum decode_format format;
    enum whiteouts whiteouts;
    bool sync;
    unsigned n_parents;
    bool has_newest;
    struct timespec newest;
    struct job_limits limits;
};

static const struct option options[] = {
    {"format", required_argument, NULL, 'f'},
    {"whiteouts", required_argument, NULL, 'w'},
    {"sync", no_argument, NULL, 's'},
    {"parents", required_argument, NULL, 'p'},
    {"newest", required_argument, NULL, 'n'},
    {"max-bytes", required_argument, NULL, 'b'},
    {"max-entries", required_argument, NULL, 'e'},
    {NULL, 0, NULL, 0},
};

/* -EINVAL: none of them. */
static int find_word(const char *s, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(s, words[i]))
            return (int)i;
    return -EINVAL;
}

/* "SECONDS.NANOSECONDS" */
static int parse_time(const char *value, struct timespec *ret)
{
    const char *point = strchr(value, '.');
    char seconds[24];
    int64_t s;
    uint32_t ns;

    if (!point || (size_t)(point - value) >= sizeof(seconds))
        return -EINVAL;
    memcpy(seconds, value, (size_t)(point - value));
    seconds[point - value] = 0;
    if (str_to_i64(seconds, &s) < 0 || str_to_u32(point + 1, &ns) < 0 || ns > 999999999)
        return -EINVAL;
    *ret = (struct timespec){.tv_sec = s, .tv_nsec = ns};
    return 0;
}

static int parse_option(struct arguments *a, int option, const char *value)
{
    static const char *const formats[] = {[DECODE_AUTO] = "auto",
                                          [DECODE_TAR] = "tar",
                                          [DECODE_GZIP] = "gzip",
                                          [DECODE_ZSTD] = "zstd"};
    static const char *const whiteouts[] = {[WHITEOUTS_OVERLAY] = "overlay",
                                            [WHITEOUTS_OVERLAY_USER] = "overlay-user",
                                            [WHITEOUTS_PLAIN] = "plain"};
    int r = 0;

    switch (option) {
    case 'f':
        r = find_word(value, formats, ARRAY_SIZE(formats));
        a->format = r < 0 ? DECODE_AUTO : (enum decode_format)r;
        return r;
    case 'w':
        r = find_word(value, whiteouts, ARRAY_SIZE(whiteouts));
        a->whiteouts = r < 0 ? WHITEOUTS_OVERLAY : (enum whiteouts)r;
        return r;
    case 's':
        a->sync = true;
        return 0;
    case 'p':
        r = str_to_u32(value, &a->n_parents);
        return r == 0 && a->n_parents > JOB_PARENTS_MAX ? -ERANGE : r;
    case 'n':
        a->has_newest = true;
        return parse_time(value, &a->newest);
    case 'b':
        return str_to_u64(value, &a->limits.max_bytes);
    case 'e':
        return str_to_u64(value, &a->limits.max_entries);
    default:
        return -EINVAL;
    }
}

static int parse_arguments(int argc, char **argv, struct arguments *ret)
{
    struct arguments a = {
        .limits = {.max_bytes = JOB_MAX_BYTES_DEFAULT, .max_entries = JOB_MAX_ENTRIES_DEFAULT},
    };
    int option;

    opterr = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
        if (parse_option(&a, option, optarg) < 0)
            return -EINVAL;
    if (optind != argc)
        return -EINVAL;
    *ret = a;
    return 0;
}

/* The last line of any job. */
static void print_record(json_t *record)
{
    char *line = record ? json_dumps(record, JSON_COMPACT) : NULL;
    json_decref(record);
    if (!line)
        return;
    size_t n = strlen(line);
    line[n] = '\n';
    int r = fs_write_all(RESULT_FD, line, n + 1);
    if (r < 0)
        log_error("write the result: %s", err_strerror(r));
    free(line);
}

static int fail(const struct err *e, bool in_member)
{
    log_error("%s", e->msg);
    /* Names in a sentence may hold any bytes, JSON may not. */
    bool clean = str_is_utf8(e->msg, strlen(e->msg));
    if (!in_member)
        print_record(json_pack("{ss si}", "error",
                               clean ? e->msg : "the archive has a name that is not UTF-8", "code",
                               (int)e->code));
    return 1;
}

/* Everything libraries would open files for, while the files are still the host's. */
static void prepare_libraries(void)
{
    /* One arena: each would take 64 MiB of address space. */
    mallopt(M_ARENA_MAX, 1);
    OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
    /* Reads the list of converters, and would read it from the target later on. */
    iconv_t converter = iconv_open("ANSI_X3.4-1968", "UTF-8");
    if (converter != (iconv_t)-1)
        iconv_close(converter);
}

static int main_apply(const struct arguments *a, struct err *e)
{
    int parent_fds[JOB_PARENTS_MAX];
    struct apply_result result;

    for (unsigned i = 0; i < a->n_parents; i++)
        parent_fds[i] = JOB_TARGET_FD + 1 + (int)i;
    struct confine c = {
        .target_fd = JOB_TARGET_FD,
        .parent_fds = parent_fds,
        .n_parents = a->n_parents,
        .trusted_xattrs = a->whiteouts == WHITEOUTS_OVERLAY,
        .needs_owner = true,
        .address_space_bytes = ADDRESS_SPACE_BYTES,
        .file_bytes = TREE_FILE_MAX,
        .cpu_seconds = CPU_SECONDS,
    };
    struct apply_job job = {
        .format = a->format,
        .whiteouts = a->whiteouts,
        .sync = a->sync,
        .in_fd = STDIN_FILENO,
        .target_fd = JOB_TARGET_FD,
        .parent_fds = parent_fds,
        .n_parents = a->n_parents,
        .limits = a->limits,
    };
    int r = confine_apply(&c, e);
    if (r < 0)
        return err_wrap(e, "confine the worker");
    r = apply_run(&job, &result, e);
    if (r < 0)
        return r;
    print_record(json_pack("{ss sI ss sI sI}", "digest", result.digest, "size",
                           (json_int_t)result.size_bytes, "blob_digest", result.blob_digest,
                           "blob_size", (json_int_t)result.blob_size_bytes, "entries",
                           (json_int_t)result.entries));
    return 0;
}

static int main_import(const struct arguments *a, bool *ret_in_member, struct err *e)
{
    struct confine c = {
        .target_fd = -EBADF,
        .address_space_bytes = ADDRESS_SPACE_BYTES,
        .file_bytes = TREE_FILE_MAX,
        .cpu_seconds = CPU_SECONDS,
    };
    struct import_job job = {.in_fd = STDIN_FILENO, .out_fd = RESULT_FD, .limits = a->limits};

    int r = confine_apply(&c, e);
    if (r < 0)
        return err_wrap(e, "confine the worker");
    return import_run(&job, ret_in_member, e);
}

/* The trees as fds are all there is to see. */
static int main_diff(const struct arguments *a, struct err *e)
{
    int fds[] = {JOB_TARGET_FD, JOB_TARGET_FD + 1};
    struct diff_result result;
    struct confine c = {
        .target_fd = -EBADF,
        .parent_fds = fds,
        .n_parents = 1 + a->n_parents,
        .reads_parents = true,
        .address_space_bytes = ADDRESS_SPACE_BYTES,
        .file_bytes = TREE_FILE_MAX,
        .cpu_seconds = CPU_SECONDS,
        .open_files = 2 * TREE_DEPTH_MAX,
    };
    struct diff_job job = {
        .format = a->format,
        .left_fd = a->n_parents > 0 ? fds[1] : -EBADF,
        .right_fd = fds[0],
        .out_fd = STDIN_FILENO,
        .has_newest = a->has_newest,
        .newest = a->newest,
        .limits = a->limits,
    };
    int r = confine_apply(&c, e);
    if (r < 0)
        return err_wrap(e, "confine the worker");
    r = diff_run(&job, &result, e);
    if (r < 0)
        return r;
    print_record(json_pack("{ss sI sI}", "digest", result.digest, "size",
                           (json_int_t)result.size_bytes, "entries", (json_int_t)result.entries));
    return 0;
}

/* -EINVAL: there is no such job. */
static int find_job(const char *name)
{
    static const char *const names[] = {
        [JOB_APPLY] = "apply", [JOB_IMPORT] = "import", [JOB_DIFF] = "diff"};

    return find_word(name, names, ARRAY_SIZE(names));
}

static bool fits(int job, const struct arguments *a)
{
    return job != JOB_DIFF || (a->format != DECODE_AUTO && a->n_parents <= 1);
}

static int usage(void)
{
    fputs("usage: wherry-worker apply --format auto|tar|gzip|zstd "
          "--whiteouts overlay|overlay-user|plain\n"
          "                           [--sync] [--parents N] [--max-bytes N] [--max-entries N]\n"
          "       wherry-worker import [--max-bytes N] [--max-entries N]\n"
          "       wherry-worker diff --format tar|gzip|zstd [--parents 1] "
          "[--newest SECONDS.NANOSECONDS]\n"
          "                          [--max-bytes N] [--max-entries N]\n"
          "Started by wherryd and wherry, which pass it its files as open descriptors.\n",
          stderr);
    return 2;
}

int main(int argc, char **argv)
{
    struct err e = ERR_INIT;
    struct arguments a;
    bool in_member = false;
    int r;

    if (argc == 2 && str_eq(argv[1], "--version")) {
        puts("wherry-worker " WHERRY_VERSION);
        return 0;
    }
    int job = argc > 1 ? find_job(argv[1]) : -EINVAL;
    if (job < 0 || parse_arguments(argc - 1, argv + 1, &a) < 0 || !fits(job, &a))
        return usage();

    umask(0);
    prepare_libraries();
    close_range(JOB_TARGET_FD + (job == JOB_IMPORT ? 0 : 1 + a.n_parents), ~0U, 0);
    r = job == JOB_APPLY  ? main_apply(&a, &e)
        : job == JOB_DIFF ? main_diff(&a, &e)
                          : main_import(&a, &in_member, &e);
    /* No destructors: they would only do what the kernel does anyway, in a sandbox. */
    _exit(r < 0 ? fail(&e, in_member) : 0);
}
