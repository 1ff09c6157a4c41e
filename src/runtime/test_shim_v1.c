/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/str.h"
#include "runtime/shim_v1.h"
#include "task.v2.pb-c.h"
#include "wire/pb.h"

static const ProtobufCMessageDescriptor *const any_reply = &google__protobuf__empty__descriptor;

static void one_id_for_container_and_exec(void **state)
{
    Pb__Task__KillRequest kill = PB__TASK__KILL_REQUEST__INIT;
    struct shim_v1_call c;

    kill.id = (char *)"c1";
    kill.signal = 15;
    kill.all = true;
    assert_true(shim_v1_translate("Kill", &kill.base, any_reply, &c));
    assert_string_equal(c.method, "Kill");
    assert_ptr_equal(c.request, &c.message.kill.base);
    assert_string_equal(c.message.kill.id, "c1");
    assert_int_equal(c.message.kill.signal, 15);
    assert_true(c.message.kill.all);

    kill.exec_id = (char *)"e1";
    assert_true(shim_v1_translate("Kill", &kill.base, any_reply, &c));
    assert_string_equal(c.message.kill.id, "e1");
}

static void delete_is_two_methods(void **state)
{
    Pb__Task__DeleteRequest request = PB__TASK__DELETE_REQUEST__INIT;
    struct shim_v1_call c;

    request.id = (char *)"c1";
    assert_true(shim_v1_translate("Delete", &request.base, any_reply, &c));
    assert_string_equal(c.method, "Delete");
    assert_ptr_equal(c.request->descriptor, &google__protobuf__empty__descriptor);

    request.exec_id = (char *)"e1";
    assert_true(shim_v1_translate("Delete", &request.base, any_reply, &c));
    assert_string_equal(c.method, "DeleteProcess");
    assert_ptr_equal(c.request->descriptor, &pb__shimv1__delete_process_request__descriptor);
    assert_string_equal(c.message.delete_process.id, "e1");
}

static void connect_asks_for_the_shim(void **state)
{
    Pb__Task__ConnectRequest request = PB__TASK__CONNECT_REQUEST__INIT;
    Pb__Shimv1__ShimInfoResponse answer = PB__SHIMV1__SHIM_INFO_RESPONSE__INIT;
    ProtobufCMessage *as_v2 = NULL;
    _free_ uint8_t *bytes = NULL;
    struct err e = ERR_INIT;
    struct shim_v1_call c;
    size_t n = 0;

    assert_true(
        shim_v1_translate("Connect", &request.base, &pb__task__connect_response__descriptor, &c));
    assert_string_equal(c.method, "ShimInfo");
    assert_ptr_equal(c.request->descriptor, &google__protobuf__empty__descriptor);
    answer.shim_pid = 42;
    assert_int_equal(pb_pack(&answer.base, &bytes, &n), 0);
    assert_int_equal(pb_unpack(c.reply, bytes, n, &as_v2, &e), 0);
    assert_int_equal(((Pb__Task__ConnectResponse *)as_v2)->shim_pid, 42);
    assert_int_equal(((Pb__Task__ConnectResponse *)as_v2)->task_pid, 0);
    pb_free(as_v2);
}

static void answer_of_start_is_converted(void **state)
{
    Pb__Task__StartRequest request = PB__TASK__START_REQUEST__INIT;
    Pb__Shimv1__StartResponse answer = PB__SHIMV1__START_RESPONSE__INIT;
    _free_ uint8_t *bytes = NULL;
    ProtobufCMessage *reply = NULL;
    struct err e = ERR_INIT;
    struct shim_v1_call c;
    size_t n = 0;

    request.id = (char *)"c1";
    request.exec_id = (char *)"e1";
    assert_true(
        shim_v1_translate("Start", &request.base, &pb__task__start_response__descriptor, &c));
    assert_string_equal(c.message.start.id, "e1");
    answer.id = (char *)"e1";
    answer.pid = 77;
    assert_int_equal(pb_pack(&answer.base, &bytes, &n), 0);
    assert_int_equal(pb_unpack(c.reply, bytes, n, &reply, &e), 0);
    reply = shim_v1_reply(reply);
    assert_ptr_equal(reply->descriptor, &pb__task__start_response__descriptor);
    assert_int_equal(((Pb__Task__StartResponse *)reply)->pid, 77);
    pb_free(reply);
}

/* Answers that are decoded as those of v2 must have their numbers. */
static void answers_have_the_numbers_of_v2(void **state)
{
    static const ProtobufCMessageDescriptor *const pairs[][2] = {
        {&pb__shimv1__state_response__descriptor, &pb__task__state_response__descriptor},
        {&pb__shimv1__delete_response__descriptor, &pb__task__delete_response__descriptor},
        {&pb__shimv1__list_pids_response__descriptor, &pb__task__pids_response__descriptor},
        {&pb__shimv1__wait_response__descriptor, &pb__task__wait_response__descriptor},
        {&pb__shimv1__shim_info_response__descriptor, &pb__task__connect_response__descriptor},
    };

    for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
        for (unsigned f = 0; f < pairs[i][0]->n_fields; f++) {
            const ProtobufCFieldDescriptor *v1 = &pairs[i][0]->fields[f];
            const ProtobufCFieldDescriptor *v2 =
                protobuf_c_message_descriptor_get_field(pairs[i][1], v1->id);
            assert_non_null(v2);
            assert_string_equal(v1->name, v2->name);
            assert_int_equal(v1->type, v2->type);
            assert_int_equal(v1->label, v2->label);
        }
    }
}

static void what_v1_has_not(void **state)
{
    Pb__Task__StatsRequest stats = PB__TASK__STATS_REQUEST__INIT;
    Pb__Task__ShutdownRequest shutdown = PB__TASK__SHUTDOWN_REQUEST__INIT;
    struct shim_v1_call c;

    assert_false(shim_v1_translate("Stats", &stats.base, any_reply, &c));
    assert_false(shim_v1_translate("Shutdown", &shutdown.base, any_reply, &c));
}

static void requests_of_v1_pass(void **state)
{
    Pb__Shimv1__CreateTaskRequest request = PB__SHIMV1__CREATE_TASK_REQUEST__INIT;
    struct shim_v1_call c;

    assert_true(shim_v1_translate("Create", &request.base,
                                  &pb__shimv1__create_task_response__descriptor, &c));
    assert_string_equal(c.method, "Create");
    assert_ptr_equal(c.request, &request.base);
    assert_ptr_equal(c.reply, &pb__shimv1__create_task_response__descriptor);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_id_for_container_and_exec),
        cmocka_unit_test(delete_is_two_methods),
        cmocka_unit_test(connect_asks_for_the_shim),
        cmocka_unit_test(answer_of_start_is_converted),
        cmocka_unit_test(answers_have_the_numbers_of_v2),
        cmocka_unit_test(what_v1_has_not),
        cmocka_unit_test(requests_of_v1_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
