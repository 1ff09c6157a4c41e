/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/grpc_account.h"

static void account_unref(struct grpc_account *a)
{
    if (atomic_fetch_sub(&a->refs, 1) == 1)
        free(a);
}

int grpc_account_connect(struct list *accounts, pid_t pid, struct grpc_account **ret)
{
    struct grpc_account *a = NULL;
    struct grpc_account *it;

    LIST_FOREACH (it, accounts, link)
        if (it->pid == pid) {
            a = it;
            break;
        }
    if (!a) {
        a = calloc(1, sizeof(*a));
        if (!a)
            return -ENOMEM;
        a->pid = pid;
        list_push_back(accounts, &a->link);
    }
    if (a->connections >= GRPC_CLIENT_MAX_CONNECTIONS)
        return -EUSERS;
    a->connections++;
    atomic_fetch_add(&a->refs, 1);
    *ret = a;
    return 0;
}

void grpc_account_disconnect(struct grpc_account *a)
{
    if (--a->connections == 0)
        list_remove(&a->link);
    account_unref(a);
}

bool grpc_account_open_call(struct grpc_account *a)
{
    if (atomic_fetch_add(&a->calls, 1) >= GRPC_CLIENT_MAX_CALLS) {
        atomic_fetch_sub(&a->calls, 1);
        return false;
    }
    atomic_fetch_add(&a->refs, 1);
    return true;
}

void grpc_account_close_call(struct grpc_account *a)
{
    atomic_fetch_sub(&a->calls, 1);
    account_unref(a);
}

bool grpc_account_charge(struct grpc_account *a, size_t bytes)
{
    if (atomic_fetch_add(&a->bytes, bytes) + bytes > GRPC_CLIENT_MAX_BYTES) {
        atomic_fetch_sub(&a->bytes, bytes);
        return false;
    }
    return true;
}

void grpc_account_refund(struct grpc_account *a, size_t bytes)
{
    atomic_fetch_sub(&a->bytes, bytes);
}
