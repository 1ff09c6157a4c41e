/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The publisher's transport where there is no ttrpc socket (runtime v1): a program run once an
 * event,
 *
 *     <binary> --address ADDRESS publish --topic TOPIC --namespace NAMESPACE
 *
 * with the event as a google.protobuf.Any on its standard input.
 */
#pragma once

#include "shim/publisher.h"
#include "shim/reaper.h"

#define PUBLISH_BINARY_TIMEOUT_MS 30000

struct publish_binary {
    struct reaper *reaper;
    const char *binary; /* borrowed: name or path */
    const char *address;
    const char *namespace_;
    struct publisher *publisher; /* of the event under way */
    struct child child;
    struct event_timer timer;
    int output_fd;
};

extern const struct publisher_transport publish_binary_transport; /* userdata: the struct */
void publish_binary_init(struct publish_binary *b, struct reaper *reaper, const char *binary,
                         const char *address, const char *namespace_);
