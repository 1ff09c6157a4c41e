/* SPDX-License-Identifier: Apache-2.0 */
/* The publisher's transport to a daemon's ttrpc socket. */
#pragma once

#include "shim/publisher.h"

struct ttrpc_client;

struct forward {
    struct event_loop *loop;
    const char *path; /* borrowed; NULL or "": there is nobody to tell, events vanish */
    const char *namespace_;
    struct ttrpc_client *client; /* NULL while not connected */
    struct publisher *publisher; /* of the call under way */
};

extern const struct publisher_transport forward_transport; /* userdata: struct forward */
void forward_done(struct forward *f);
