/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/json_out.h"

#include <stdio.h>

#include "base/str.h"
#include "cli/table.h"
#include "wire/pb.h"

json_t *json_text(const char *s)
{
    json_t *text = json_string(str_or_empty(s));
    _free_ char *escaped = NULL;

    if (text)
        return text;
    escaped = table_escape(s);
    return json_string(str_or_empty(escaped));
}

json_t *json_time(const Google__Protobuf__Timestamp *t)
{
    struct timespec time = pb_timestamp_get(t);
    char text[CLOCK_RFC3339_MAX];

    if (time.tv_sec == 0 && time.tv_nsec == 0)
        return json_null();
    clock_rfc3339(time, text);
    return json_string(text);
}

json_t *json_labels(void *const *entries, size_t n)
{
    json_t *labels = json_object();

    for (size_t i = 0; i < n; i++) {
        const struct pb_string_entry *entry = entries[i];
        json_put(labels, entry->key, json_text(entry->value));
    }
    return labels;
}

void json_put(json_t *object, const char *key, json_t *value)
{
    json_object_set_new(object, key, value);
}

static int print(json_t *value, size_t flags, struct err *e)
{
    int r = json_dumpf(value, stdout, flags | JSON_ENCODE_ANY);

    json_decref(value);
    if (r < 0)
        return err_set(e, ERR_UNKNOWN, "write JSON to standard output");
    putchar('\n');
    return 0;
}

int json_print(json_t *value, struct err *e)
{
    return print(value, JSON_INDENT(2), e);
}

int json_print_line(json_t *value, struct err *e)
{
    return print(value, JSON_COMPACT, e);
}
