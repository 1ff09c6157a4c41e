/* SPDX-License-Identifier: Apache-2.0 */
/* Every parser of image JSON over the same bytes; what is accepted must survive being written and
 * read again. */
#include <assert.h>

#include "oci/digest.h"
#include "oci/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void round_trip_index(const struct image_index *x)
{
    _free_ char *text = NULL;
    _cleanup_(image_index_done) struct image_index again = {0};

    for (size_t i = 0; i < x->n_manifests; i++)
        assert(digest_is_valid(x->manifests[i].digest) && x->manifests[i].size >= 0);
    if (image_index_format(x, &text, NULL) == 0 && strlen(text) <= IMAGE_MANIFEST_MAX)
        assert(image_index_parse(text, strlen(text), &again, NULL) == 0 &&
               again.n_manifests == x->n_manifests);
}

static void round_trip_manifest(const struct image_manifest *m)
{
    _free_ char *text = NULL;
    _cleanup_(image_manifest_done) struct image_manifest again = {0};

    if (image_manifest_format(m, &text, NULL) == 0 && strlen(text) <= IMAGE_MANIFEST_MAX)
        assert(image_manifest_parse(text, strlen(text), &again, NULL) == 0 &&
               again.n_layers == m->n_layers);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    _cleanup_(image_index_done) struct image_index x = {0};
    _cleanup_(image_manifest_done) struct image_manifest m = {0};
    _cleanup_(image_config_done) struct image_config c = {0};
    _cleanup_(docker_archive_done) struct docker_archive a = {0};
    struct err e = ERR_INIT;
    enum image_kind kind;

    bool is_index = image_index_parse(data, size, &x, &e) == 0;
    bool is_manifest = image_manifest_parse(data, size, &m, &e) == 0;
    assert(!(is_index && is_manifest));
    if (is_index)
        round_trip_index(&x);
    if (is_manifest)
        round_trip_manifest(&m);
    if (image_detect_kind(data, size, &kind, &e) == 0 && (is_index || is_manifest))
        assert(kind == (is_index ? IMAGE_INDEX : IMAGE_MANIFEST));
    (void)!image_config_parse(data, size, &c, &e);
    (void)!docker_archive_parse(data, size, &a, &e);
    (void)!image_layout_check(data, size, &e);
    return 0;
}
