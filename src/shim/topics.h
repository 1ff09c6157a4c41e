/* SPDX-License-Identifier: Apache-2.0 */
/* The topics a shim publishes on. */
#pragma once

#define TOPIC_CREATE "/tasks/create"
#define TOPIC_START "/tasks/start"
#define TOPIC_EXEC_ADDED "/tasks/exec-added"
#define TOPIC_EXEC_STARTED "/tasks/exec-started"
#define TOPIC_EXIT "/tasks/exit"
#define TOPIC_DELETE "/tasks/delete"
#define TOPIC_PAUSED "/tasks/paused"
#define TOPIC_RESUMED "/tasks/resumed"
#define TOPIC_OOM "/tasks/oom"
#define TOPIC_CHECKPOINTED "/tasks/checkpointed"
