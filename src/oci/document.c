/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/document.h"

#include "base/str.h"

/* Depth of brackets outside strings. Good enough for bytes that are not JSON too: it only has to
 * bound what the parser will recurse into. */
static bool is_too_deep(const uint8_t *bytes, size_t n)
{
    size_t depth = 0;
    bool in_string = false;

    for (size_t i = 0; i < n; i++) {
        uint8_t c = bytes[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > DOCUMENT_DEPTH_MAX)
                return true;
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
    }
    return false;
}

static int parse_value(const void *bytes, size_t n, size_t max_bytes, const char *what,
                       json_t **ret, struct err *e)
{
    json_error_t error;

    if (n > max_bytes)
        return err_set(e, ERR_RESOURCE_EXHAUSTED, "%s is %zu bytes, more than the %zu allowed",
                       what, n, max_bytes);
    if (is_too_deep(bytes, n))
        return err_set(e, ERR_INVALID_ARGUMENT, "%s is nested more than %d deep", what,
                       DOCUMENT_DEPTH_MAX);
    json_t *j = json_loadb(bytes ? bytes : "", n, JSON_REJECT_DUPLICATES, &error);
    if (!j && json_error_code(&error) == json_error_out_of_memory)
        return err_oom(e);
    if (!j)
        return err_set(e, ERR_INVALID_ARGUMENT, "%s is not valid JSON: line %d: %s", what,
                       error.line, error.text);
    *ret = j;
    return 0;
}

int document_parse(const void *bytes, size_t n, size_t max_bytes, const char *what, json_t **ret,
                   struct err *e)
{
    _json_ json_t *j = NULL;

    int r = parse_value(bytes, n, max_bytes, what, &j, e);
    if (r < 0)
        return r;
    if (!json_is_object(j))
        return err_set(e, ERR_INVALID_ARGUMENT, "%s is not a JSON object", what);
    *ret = TAKE(j);
    return 0;
}

int document_parse_array(const void *bytes, size_t n, size_t max_bytes, const char *what,
                         json_t **ret, struct err *e)
{
    _json_ json_t *j = NULL;

    int r = parse_value(bytes, n, max_bytes, what, &j, e);
    if (r < 0)
        return r;
    if (!json_is_array(j))
        return err_set(e, ERR_INVALID_ARGUMENT, "%s is not a JSON array", what);
    *ret = TAKE(j);
    return 0;
}

static int wrong_type(const char *key, const char *wanted, struct err *e)
{
    return err_set(e, ERR_INVALID_ARGUMENT, "member \"%s\" is not %s", key, wanted);
}

static json_t *member(const json_t *object, const char *key)
{
    json_t *v = json_object_get(object, key);
    return json_is_null(v) ? NULL : v;
}

int document_string(const json_t *object, const char *key, char **ret, struct err *e)
{
    json_t *v = member(object, key);
    if (!v)
        return 0;
    if (!json_is_string(v))
        return wrong_type(key, "a string", e);
    char *copy = strdup(json_string_value(v));
    if (!copy)
        return err_oom(e);
    free(*ret);
    *ret = copy;
    return 0;
}

int document_int(const json_t *object, const char *key, int64_t *ret, struct err *e)
{
    json_t *v = member(object, key);
    if (!v)
        return 0;
    if (!json_is_integer(v))
        return wrong_type(key, "an integer", e);
    *ret = json_integer_value(v);
    return 0;
}

int document_bool(const json_t *object, const char *key, bool *ret, struct err *e)
{
    json_t *v = member(object, key);
    if (!v)
        return 0;
    if (!json_is_boolean(v))
        return wrong_type(key, "true or false", e);
    *ret = json_is_true(v);
    return 0;
}

int document_strv(const json_t *object, const char *key, size_t max, char ***ret, struct err *e)
{
    _cleanup_(strv_freep) char **v = NULL;

    json_t *list = NULL;
    int r = document_array(object, key, &list, e);
    if (r < 0 || !list)
        return r;
    size_t n = json_array_size(list);
    if (n > max)
        return err_set(e, ERR_INVALID_ARGUMENT, "member \"%s\" has %zu elements, more than %zu",
                       key, n, max);

    v = calloc(n + 1, sizeof(*v));
    if (!v)
        return err_oom(e);
    for (size_t i = 0; i < n; i++) {
        const char *s = json_string_value(json_array_get(list, i));
        if (!s)
            return wrong_type(key, "a list of strings", e);
        v[i] = strdup(s);
        if (!v[i])
            return err_oom(e);
    }
    strv_free(*ret);
    *ret = TAKE(v);
    return 0;
}

int document_strmap(const json_t *object, const char *key, struct strmap *ret, struct err *e)
{
    json_t *members = NULL;
    int r = document_object(object, key, &members, e);
    if (r < 0)
        return r;

    const char *name;
    json_t *v;
    json_object_foreach(members, name, v)
    {
        if (!json_is_string(v))
            return wrong_type(key, "a map of strings", e);
        r = strmap_set(ret, name, json_string_value(v));
        if (r == -ENOBUFS)
            return err_set(e, ERR_INVALID_ARGUMENT, "member \"%s\" has more than %d entries", key,
                           STRMAP_MAX);
        if (r < 0)
            return err_oom(e);
    }
    return 0;
}

int document_object(const json_t *object, const char *key, json_t **ret, struct err *e)
{
    json_t *v = member(object, key);
    if (!v)
        return 0;
    if (!json_is_object(v))
        return wrong_type(key, "an object", e);
    *ret = v;
    return 0;
}

int document_array(const json_t *object, const char *key, json_t **ret, struct err *e)
{
    json_t *v = member(object, key);
    if (!v)
        return 0;
    if (!json_is_array(v))
        return wrong_type(key, "an array", e);
    *ret = v;
    return 0;
}
