/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/str.h"

/* What the log wrote into the pipe. */
static size_t read_line(int fd, char *out, size_t size)
{
    ssize_t n = read(fd, out, size - 1);

    out[n > 0 ? n : 0] = '\0';
    return n > 0 ? (size_t)n : 0;
}

static void writes_one_line(void **state)
{
    char line[2 * LOG_LINE_MAX];
    int fds[2];

    assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    log_set_fd(fds[1]);
    log_set_level(LOG_INFO);
    assert_int_equal(log_get_level(), LOG_INFO);

    log_debug("hidden");
    assert_int_equal(read_line(fds[0], line, sizeof(line)), 0);

    errno = EBUSY;
    log_warn("a \"quoted\" \\ line\nlevel=fatal\t\x1b[31m é \xff \xc2\x9b %d", 7);
    assert_int_equal(errno, EBUSY);
    assert_true(read_line(fds[0], line, sizeof(line)) > 0);
    assert_non_null(str_after_prefix(line, "time=\"2"));
    assert_non_null(strstr(line,
                           "Z\" level=warning msg=\"a \\\"quoted\\\" \\\\ line\\nlevel=fatal\\t"
                           "\\x1b[31m é \\xff \\xc2\\x9b 7\"\n"));

    /* Long lines are cut, and stay lines. */
    char longer[3 * LOG_LINE_MAX];
    for (int bad = 0; bad < 2; bad++) {
        memset(longer, bad ? '\x01' : 'x', sizeof(longer) - 1);
        longer[sizeof(longer) - 1] = '\0';
        log_error("%s", longer);
        size_t n = read_line(fds[0], line, sizeof(line));
        assert_true(n <= LOG_LINE_MAX && n > LOG_LINE_MAX - 8);
        assert_true(str_has_suffix(line, bad ? "\\x01\"\n" : "xxxx\"\n"));
    }
    log_set_fd(STDERR_FILENO);
    close(fds[0]);
    close(fds[1]);
}

static void parses_levels(void **state)
{
    static const struct {
        const char *name;
        enum log_level level;
    } cases[] = {
        {"trace", LOG_TRACE},  {"debug", LOG_DEBUG}, {"info", LOG_INFO},   {"warn", LOG_WARN},
        {"warning", LOG_WARN}, {"error", LOG_ERROR}, {"fatal", LOG_FATAL}, {"panic", LOG_FATAL},
    };
    enum log_level level = LOG_INFO;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(log_level_parse(cases[i].name, &level), 0);
        assert_int_equal(level, cases[i].level);
    }
    assert_int_equal(log_level_parse("loud", &level), -EINVAL);
    assert_int_equal(log_level_parse("", &level), -EINVAL);
    assert_int_equal(log_level_parse(NULL, &level), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_one_line),
        cmocka_unit_test(parses_levels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
