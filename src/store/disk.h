/* SPDX-License-Identifier: Apache-2.0 */
/* Failures of file operations of the stores, as clients see them. */
#pragma once

#include "base/err.h"

/* err_errno(), except that a full disk or quota is ERR_RESOURCE_EXHAUSTED. */
#define disk_error(e, r, ...) disk_error_code((e), (r), err_errno((e), (r), __VA_ARGS__))

static inline int disk_error_code(struct err *e, int r, int ret)
{
    if (e && (r == -ENOSPC || r == -EDQUOT))
        e->code = ERR_RESOURCE_EXHAUSTED;
    return ret;
}
