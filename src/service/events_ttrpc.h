/* SPDX-License-Identifier: Apache-2.0 */
/*
 * containerd.services.events.ttrpc.v1.Events, by which shims hand in their events. For a
 * ttrpc_server whose userdata is the service_context.
 */
#pragma once

#include "wire/ttrpc_server.h"

extern const struct ttrpc_service events_ttrpc_service;
