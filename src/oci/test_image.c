/* SPDX-License-Identifier: Apache-2.0 */
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on

#include "base/str.h"
#include "oci/image.h"

#define D1 "sha256:1111111111111111111111111111111111111111111111111111111111111111"
#define D2 "sha256:2222222222222222222222222222222222222222222222222222222222222222"
#define DESCRIPTOR(type, digest) "{\"mediaType\":\"" type "\",\"digest\":\"" digest "\",\"size\":7}"

static void test_media_types(void **state)
{
    assert_int_equal(image_kind_of(MEDIA_TYPE_OCI_INDEX), IMAGE_INDEX);
    assert_int_equal(image_kind_of(MEDIA_TYPE_DOCKER_INDEX), IMAGE_INDEX);
    assert_int_equal(image_kind_of(MEDIA_TYPE_DOCKER_MANIFEST "; charset=utf-8"), IMAGE_MANIFEST);
    assert_int_equal(image_kind_of(MEDIA_TYPE_DOCKER_CONFIG), IMAGE_CONFIG);
    assert_int_equal(image_kind_of("text/plain"), IMAGE_UNKNOWN);
    assert_int_equal(image_kind_of(NULL), IMAGE_UNKNOWN);
    assert_int_equal(image_layer_format(MEDIA_TYPE_OCI_LAYER_GZIP), LAYER_GZIP);
    assert_int_equal(image_layer_format(MEDIA_TYPE_OCI_LAYER_ZSTD), LAYER_ZSTD);
    assert_int_equal(image_layer_format(MEDIA_TYPE_OCI_LAYER), LAYER_TAR);
    assert_int_equal(image_layer_format(MEDIA_TYPE_DOCKER_LAYER_GZIP), LAYER_AUTO);
    assert_int_equal(image_layer_format(MEDIA_TYPE_OCI_INDEX), LAYER_NOT);
}

static void test_manifest(void **state)
{
    static const char text[] =
        "{\"schemaVersion\":2,\"mediaType\":\"" MEDIA_TYPE_OCI_MANIFEST
        "\",\"config\":" DESCRIPTOR(MEDIA_TYPE_OCI_CONFIG, D1) ",\"layers\":[" DESCRIPTOR(
            MEDIA_TYPE_OCI_LAYER_GZIP, D2) "],"
                                           "\"annotations\":{\"a\":"
                                           "\"b\"}}";
    _cleanup_(image_manifest_done) struct image_manifest m = {0};
    enum image_kind kind;

    assert_int_equal(image_manifest_parse(text, strlen(text), &m, NULL), 0);
    assert_string_equal(m.config.digest, D1);
    assert_int_equal(m.config.size, 7);
    assert_int_equal(m.n_layers, 1);
    assert_string_equal(m.layers[0].digest, D2);
    assert_string_equal(strmap_get(&m.annotations, "a"), "b");
    assert_int_equal(image_detect_kind(text, strlen(text), &kind, NULL), 0);
    assert_int_equal(kind, IMAGE_MANIFEST);

    _free_ char *again = NULL;
    assert_int_equal(image_manifest_format(&m, &again, NULL), 0);
    assert_string_equal(again, text);
}

static void test_index(void **state)
{
    static const char text[] =
        "{\"schemaVersion\":2,\"mediaType\":\"" MEDIA_TYPE_OCI_INDEX "\",\"manifests\":["
        "{\"mediaType\":\"" MEDIA_TYPE_OCI_MANIFEST "\",\"digest\":\"" D1 "\",\"size\":1,"
        "\"annotations\":{\"" ANNOTATION_REF_NAME "\":\"t\"},"
        "\"platform\":{\"architecture\":\"arm64\",\"os\":\"linux\"}},"
        "{\"mediaType\":\"" MEDIA_TYPE_OCI_MANIFEST "\",\"digest\":\"" D2 "\",\"size\":2,"
        "\"platform\":{\"architecture\":\"amd64\",\"os\":\"linux\"}}]}";
    _cleanup_(image_index_done) struct image_index x = {0};
    struct platform want;
    enum image_kind kind;

    assert_int_equal(image_index_parse(text, strlen(text), &x, NULL), 0);
    assert_int_equal(x.n_manifests, 2);
    platform_parse("linux/amd64", &want, NULL);
    assert_ptr_equal(image_index_choose(&x, &want), &x.manifests[1]);
    platform_parse("linux/s390x", &want, NULL);
    assert_null(image_index_choose(&x, &want));
    x.manifests[0].has_platform = false;
    assert_ptr_equal(image_index_choose(&x, &want), &x.manifests[0]);
    x.manifests[0].has_platform = true;
    assert_int_equal(image_detect_kind(text, strlen(text), &kind, NULL), 0);
    assert_int_equal(kind, IMAGE_INDEX);

    _free_ char *again = NULL;
    assert_int_equal(image_index_format(&x, &again, NULL), 0);
    assert_string_equal(again, text);

    _cleanup_(descriptor_done) struct descriptor copy = {0};
    assert_int_equal(descriptor_copy(&copy, &x.manifests[0]), 0);
    assert_string_equal(copy.digest, D1);
    assert_string_equal(strmap_get(&copy.annotations, ANNOTATION_REF_NAME), "t");
}

static void test_refused(void **state)
{
    static const char *const cases[] = {
        /* two things at once */
        "{\"manifests\":[],\"layers\":[]}",
        "{\"manifests\":[],\"config\":" DESCRIPTOR("x", D1) "}",
        "{\"mediaType\":\"" MEDIA_TYPE_OCI_INDEX
        "\",\"config\":" DESCRIPTOR("x", D1) ",\"layers\":[]}",
        "{\"mediaType\":\"" MEDIA_TYPE_OCI_MANIFEST "\",\"manifests\":[]}",
        "{\"mediaType\":\"text/plain\",\"manifests\":[]}",
        /* old and unknown */
        "{\"schemaVersion\":1,\"manifests\":[]}",
        "{\"fsLayers\":[],\"history\":[]}",
        "{}",
        "[]",
        /* descriptors */
        "{\"manifests\":[null]}",
        "{\"manifests\":[1]}",
        "{\"manifests\":{}}",
        "{\"manifests\":[{}]}",
        "{\"manifests\":[{\"digest\":\"" D1 "\"}]}",
        "{\"manifests\":[{\"digest\":\"" D1 "\",\"size\":-1}]}",
        "{\"manifests\":[{\"digest\":\"" D1 "\",\"size\":1.5}]}",
        "{\"manifests\":[{\"digest\":\"" D1 "\",\"size\":\"1\"}]}",
        "{\"manifests\":[{\"digest\":\"" D1 "\",\"size\":9223372036854775808}]}",
        "{\"manifests\":[{\"digest\":\"sha256:../../x\",\"size\":1}]}",
        "{\"manifests\":[{\"digest\":\"" D1 "\",\"size\":1,\"size\":2}]}",
        "{\"manifests\":[{\"digest\":\"" D1 "\",\"size\":1,\"annotations\":{\"a\":1}}]}",
        "{\"manifests\":[{\"digest\":\"" D1 "\",\"size\":1,\"urls\":[1]}]}",
        "{\"manifests\":[{\"digest\":\"" D1 "\",\"size\":1,\"platform\":\"x\"}]}",
        "{\"layers\":[]}",
        "{\"config\":null,\"layers\":[]}",
        "{\"config\":{},\"layers\":[]}",
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct image_index x = {0};
        struct image_manifest m = {0};
        struct err e = ERR_INIT;
        if (image_index_parse(cases[i], strlen(cases[i]), &x, &e) == 0)
            fail_msg("accepted as index: %s", cases[i]);
        assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
        err_clear(&e);
        if (image_manifest_parse(cases[i], strlen(cases[i]), &m, &e) == 0)
            fail_msg("accepted as manifest: %s", cases[i]);
        assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    }
}

static void test_config(void **state)
{
    static const char text[] =
        "{\"architecture\":\"amd64\",\"os\":\"linux\",\"created\":\"2026-01-01T00:00:00Z\","
        "\"config\":{\"User\":\"1:2\",\"WorkingDir\":\"/w\",\"Env\":[\"A=b\"],\"Cmd\":[\"sh\"],"
        "\"Entrypoint\":null,\"Volumes\":{\"/b\":{},\"/a\":{}},\"ExposedPorts\":{\"80/tcp\":{}},"
        "\"Labels\":{\"k\":\"v\"},\"StopSignal\":\"SIGINT\"},"
        "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"" D1 "\",\"" D2 "\"]},"
        "\"history\":[{\"created_by\":\"x\"},{}]}";
    _cleanup_(image_config_done) struct image_config c = {0};

    assert_int_equal(image_config_parse(text, strlen(text), &c, NULL), 0);
    assert_string_equal(c.platform.architecture, "amd64");
    assert_string_equal(c.user, "1:2");
    assert_string_equal(c.working_dir, "/w");
    assert_string_equal(c.env[0], "A=b");
    assert_string_equal(c.cmd[0], "sh");
    assert_null(c.entrypoint);
    assert_string_equal(c.volumes[0], "/a");
    assert_string_equal(c.volumes[1], "/b");
    assert_string_equal(c.exposed_ports[0], "80/tcp");
    assert_string_equal(c.stop_signal, "SIGINT");
    assert_int_equal(c.n_diff_ids, 2);
    assert_int_equal(c.n_history, 2);

    _cleanup_(image_config_done) struct image_config empty = {0};
    assert_int_equal(image_config_parse("{}", 2, &empty, NULL), 0);
    assert_int_equal(empty.n_diff_ids, 0);

    static const char *const bad[] = {
        "[]",
        "{\"config\":[]}",
        "{\"config\":{\"Env\":{}}}",
        "{\"config\":{\"Env\":[1]}}",
        "{\"config\":{\"User\":1}}",
        "{\"rootfs\":{\"diff_ids\":[\"x\"]}}",
        "{\"rootfs\":{\"type\":\"other\"}}",
        "{\"history\":{}}",
        "{\"os\":\"a b\"}",
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct image_config x = {0};
        struct err e = ERR_INIT;
        assert_true(image_config_parse(bad[i], strlen(bad[i]), &x, &e) < 0);
        assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    }
}

static void test_docker_archive(void **state)
{
    static const char text[] =
        "[{\"Config\":\"c.json\",\"RepoTags\":[\"a:b\"],\"Layers\":[\"1/layer.tar\","
        "\"2/layer.tar\"]},{\"Config\":\"d.json\",\"RepoTags\":null}]";
    _cleanup_(docker_archive_done) struct docker_archive a = {0};

    assert_int_equal(docker_archive_parse(text, strlen(text), &a, NULL), 0);
    assert_int_equal(a.n_images, 2);
    assert_string_equal(a.images[0].layers[1], "2/layer.tar");
    assert_null(a.images[1].repo_tags);

    struct docker_archive x = {0};
    assert_true(docker_archive_parse("{}", 2, &x, NULL) < 0);
    assert_true(docker_archive_parse("[1]", 3, &x, NULL) < 0);
    assert_true(docker_archive_parse("[{}]", 4, &x, NULL) < 0);

    static const char layout[] = "{\"imageLayoutVersion\":\"1.0.0\"}";
    assert_int_equal(image_layout_check(layout, strlen(layout), NULL), 0);
    assert_true(image_layout_check("{}", 2, NULL) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_media_types), cmocka_unit_test(test_manifest),
        cmocka_unit_test(test_index),       cmocka_unit_test(test_refused),
        cmocka_unit_test(test_config),      cmocka_unit_test(test_docker_archive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
