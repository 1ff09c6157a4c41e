#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Turns the numbered schema files into a C array of strings: embed.py OUTPUT FILE..."""
import pathlib
import sys


def literal(line):
    text = line.replace("\\", "\\\\").replace('"', '\\"')
    return '    "%s\\n"' % text


def main():
    output, names = sys.argv[1], sorted(sys.argv[2:])
    out = ['#include "store/schema.h"', "", "const char *const db_schema[] = {"]
    for number, name in enumerate(names, 1):
        path = pathlib.Path(name)
        if not path.name.startswith("%04d_" % number):
            sys.exit("%s: schema files are numbered without a gap, %04d was expected" % (name, number))
        lines = [l.split("--")[0].rstrip() for l in path.read_text().splitlines()]
        out += [literal(l) for l in lines if l]
        out[-1] += ","
    out += ["};", "const size_t db_schema_n = sizeof(db_schema) / sizeof(*db_schema);", ""]
    pathlib.Path(output).write_text("\n".join(out))


main()
