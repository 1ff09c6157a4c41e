/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines on one fd (stderr unless set otherwise), one write(2) a line:
 *
 *     time="2026-01-02T03:04:05.678901234Z" level=info msg="..."
 *
 * Control characters, quotes and backslashes of the message are escaped, so that what comes from a
 * client cannot forge a line. A line is at most LOG_LINE_MAX bytes; longer ones are cut. Lines
 * below the level cost one comparison. Safe in any thread, not in signal handlers.
 */
#pragma once

#include "base/attr.h"

enum log_level { LOG_TRACE, LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_FATAL };
#define LOG_LINE_MAX 4096

void log_set_level(enum log_level level);
enum log_level log_get_level(void);
/* The fd is borrowed. */
void log_set_fd(int fd);
/* "trace" "debug" "info" "warn"/"warning" "error" "fatal" "panic" -> level. Returns -EINVAL for
 * others. */
int log_level_parse(const char *name, enum log_level *ret);

void log_line(enum log_level level, const char *format, ...) _printf_(2, 3);
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
