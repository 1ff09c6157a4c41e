# SPDX-License-Identifier: Apache-2.0
"""wherry-worker: what comes of a layer in a directory, and what must not."""
import json
import os
import shutil
import stat
import subprocess
import tarfile
import time

import pytest

from integration.layers import (END, device, digest, directory, hardlink, is_whiteout, make_tar, member, pad, pax,
                                raw_header, run_apply, snapshot_of, symlink)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="layers are applied by root")


# What a layer holds.


def test_everything_a_layer_holds(target):
    times = {"mtime": 1234567890.123456789}
    layer = make_tar(
        directory("usr", mode=0o750, uid=3, gid=4, **times),
        member("usr/tool", data=b"#!", mode=0o4755, uid=0, gid=7),
        member("usr/private", data=b"x" * 300000, mode=0o600, uid=1000, gid=1001, **times),
        hardlink("usr/other", "usr/private"),
        symlink("usr/abs", "/etc/passwd"),
        device("dev/null", 1, 3),
        device("dev/disk", 8, 1, tarfile.BLKTYPE),
        member("run/fifo", tarfile.FIFOTYPE, mode=0o622),
        directory("tmp", mode=0o1777),
    )
    result = run_apply(target, layer)
    assert result["digest"] == result["blob_digest"] == digest(layer)
    assert result["size"] == result["blob_size"] == len(layer)
    assert result["entries"] == 9

    st = os.stat(target / "usr")
    assert (st.st_mode & 0o7777, st.st_uid, st.st_gid) == (0o750, 3, 4)
    assert abs(st.st_mtime_ns - 1234567890123456789) < 1000
    st = os.stat(target / "usr/tool")
    assert (st.st_mode & 0o7777, st.st_gid) == (0o4755, 7)
    st = os.stat(target / "usr/private")
    assert (st.st_size, st.st_uid, st.st_nlink) == (300000, 1000, 2)
    assert abs(st.st_mtime_ns - 1234567890123456789) < 1000
    assert os.stat(target / "usr/other").st_ino == st.st_ino
    assert os.readlink(target / "usr/abs") == "/etc/passwd"
    assert os.stat(target / "dev/null").st_rdev == os.makedev(1, 3)
    assert stat.S_ISBLK(os.stat(target / "dev/disk").st_mode)
    st = os.stat(target / "run/fifo")
    assert stat.S_ISFIFO(st.st_mode) and st.st_mode & 0o7777 == 0o622
    assert os.stat(target / "tmp").st_mode & 0o7777 == 0o1777
    # Implied by their children.
    assert os.stat(target / "dev").st_mode & 0o7777 == 0o755


def test_same_as_gnu_tar(target, tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    for name in ("alternatives", "apt", "pam.d", "ssl"):
        if os.path.isdir(f"/etc/{name}"):
            shutil.copytree(f"/etc/{name}", source / "etc" / name, symlinks=True)
    os.makedirs(source / ("d" * 200) / ("e" * 200))
    (source / ("d" * 200) / ("e" * 200) / ("f" * 255)).write_text("deep")
    for format in ("gnu", "pax", "ustar"):
        if format == "ustar":
            shutil.rmtree(source / ("d" * 200))
        packed = subprocess.run(
            ["tar", f"--format={format}", "-C", source, "-c", "."], capture_output=True, check=True
        ).stdout
        ours = target / format
        ours.mkdir()
        theirs = tmp_path_factory.mktemp("theirs")
        subprocess.run(["tar", "-C", theirs, "-xp"], input=packed, check=True)
        assert "error" not in run_apply(ours, packed)
        expected, seen = snapshot_of(theirs), snapshot_of(ours)
        assert seen == expected
        subprocess.run(["diff", "-r", "--no-dereference", theirs, ours], check=True)
        shutil.rmtree(theirs)
    shutil.rmtree(source)


def test_names_are_bytes(target):
    decomposed, composed = "e\u0301", "\u00e9"
    layer = make_tar(member(decomposed, data=b"1"), member(composed, data=b"2"))
    layer = layer[:-1024].rstrip(b"\0")
    layer = pad(layer) + pax(path=b"raw\xff\xfename") + raw_header(b"x") + raw_header(b"old\xff") + END
    assert "error" not in run_apply(target, layer)
    assert sorted(os.listdir(os.fsencode(target))) == sorted(
        [decomposed.encode(), composed.encode(), b"raw\xff\xfename", b"old\xff"]
    )


def test_names_with_odd_bytes(target):
    names = ["new\nline", "tab\t", "quote\"", "back\\slash", "-dash", " ", "a" * 255]
    assert "error" not in run_apply(target, make_tar(*[member(n) for n in names]))
    assert sorted(os.listdir(target)) == sorted(names)


@pytest.mark.parametrize("name", ["a" * 256, "/".join(["d" * 200] * 21), "/".join(["d"] * 1100)],
                         ids=["component", "path", "depth"])
def test_names_over_the_limits(target, name):
    result = run_apply(target, make_tar(member(name)))
    assert result["code"] == 3


def test_pax_overrides(target):
    layer = pax(path="real", size="3") + raw_header(b"fake", 0) + pad(b"abc") + END
    assert "error" not in run_apply(target, layer)
    assert os.listdir(target) == ["real"]
    assert (target / "real").read_bytes() == b"abc"


def test_old_headers(target):
    layer = raw_header(b"v7", 2, b"\0", magic=b"\0" * 8) + pad(b"ok")
    layer += raw_header(b"base256", b"\x80" + b"\0" * 10 + b"\x02") + pad(b"ok") + END
    assert "error" not in run_apply(target, layer)
    assert (target / "v7").read_bytes() == (target / "base256").read_bytes() == b"ok"


@pytest.mark.parametrize("size", [b"\xff" * 12, b"\x80" + b"\xff" * 11, b"\x80\0\0\0\x7f" + b"\xff" * 7],
                         ids=["no digits", "negative", "exabytes"])
def test_absurd_sizes(target, size):
    assert run_apply(target, raw_header(b"x", size) + END)["code"] in (3, 8)


def test_xattr_policy(target):
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    values = {
        "user.kept": b"\x00\xffvalue",
        "security.capability": capability,
        "user.overlay.opaque": b"y",
        "trusted.overlay.opaque": b"y",
        "trusted.overlay.redirect": b"/etc",
        "trusted.other": b"1",
        "security.ima": b"1",
        "security.selinux": b"system_u:object_r:etc_t:s0\0",
    }
    records = {"SCHILY.xattr." + k: v for k, v in values.items()}
    layer = pax(**records) + raw_header(b"file") + pax(**records) + raw_header(b"dir/", 0, b"5") + END
    assert "error" not in run_apply(target, layer)
    for name in ("file", "dir"):
        path = target / name
        expected = {"user.kept", "security.capability"}
        if not os.listxattr(path):
            pytest.skip("the file system here keeps no xattrs")
        assert set(os.listxattr(path)) - {"security.selinux"} == expected
        assert os.getxattr(path, "user.kept") == b"\x00\xffvalue"
        assert os.getxattr(path, "security.capability") == capability


def test_sparse_files_stay_sparse(target, tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    with open(source / "hole", "wb") as f:
        f.write(b"start")
        f.seek(1 << 30)
        f.write(b"end")
        f.truncate(3 << 30)
    for options in (["--format=gnu"], *(["--format=pax", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0"))):
        packed = subprocess.run(
            ["tar", "-S", *options, "-C", source, "-c", "hole"], capture_output=True, check=True
        ).stdout
        assert "error" not in run_apply(target, packed)
        st = os.stat(target / "hole")
        assert st.st_size == 3 << 30
        assert st.st_blocks * 512 < 1 << 20
        with open(target / "hole", "rb") as f:
            assert f.read(5) == b"start"
            f.seek(1 << 30)
            assert f.read(4) == b"end\0"
    shutil.rmtree(source)


def test_terabyte_of_hole(target):
    layer = (
        pax(**{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "huge",
               "GNU.sparse.realsize": str(1 << 40)})
        + raw_header(b"x", 512)
        + pad(b"1\n%d\n0\n" % (1 << 40))
        + END
    )
    started = time.monotonic()
    result = run_apply(target, layer)
    assert time.monotonic() - started < 5
    if "error" in result:
        assert result["code"] in (3, 8)
    else:
        assert os.stat(target / "huge").st_blocks * 512 < 1 << 20


def test_exabytes_of_hole(target):
    layer = (
        pax(**{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "huge",
               "GNU.sparse.realsize": str(1 << 62)})
        + raw_header(b"x", 512)
        + pad(b"1\n%d\n0\n" % (1 << 62))
        + END
    )
    assert run_apply(target, layer)["code"] in (3, 8)


# Later entries against earlier ones.


def test_replacing(target):
    layer = make_tar(
        member("file-dir", data=b"1"), directory("file-dir"), member("file-dir/in", data=b"2"),
        directory("dir-file"), member("dir-file/in"), member("dir-file", data=b"3"),
        directory("dir-link"), member("dir-link/in"), symlink("dir-link", "elsewhere"),
        member("twice", data=b"long content"), member("twice", data=b"4"),
        directory("merged", mode=0o700), member("merged/a"), directory("merged", mode=0o711),
    )
    assert "error" not in run_apply(target, layer)
    assert (target / "file-dir/in").read_bytes() == b"2"
    assert (target / "dir-file").read_bytes() == b"3"
    assert os.readlink(target / "dir-link") == "elsewhere"
    assert (target / "twice").read_bytes() == b"4"
    assert os.stat(target / "merged").st_mode & 0o777 == 0o711
    assert (target / "merged/a").exists()


def test_over_what_is_there_already(target):
    """A hard link or a link in the target is replaced, never written through."""
    (target / "victim").write_text("keep")
    os.link(target / "victim", target / "linked")
    os.symlink("victim", target / "pointing")
    assert "error" not in run_apply(
        target, make_tar(member("linked", data=b"new"), member("pointing", data=b"new"))
    )
    assert (target / "victim").read_text() == "keep"
    assert not os.path.islink(target / "pointing")


# ---- breakouts ---------------------------------------------------------------------------------

OUT = "../outside"
BREAKOUTS = {
    "dotdot": [member("../outside/evil", data=b"x")],
    "many dotdot": [member("../" * 30 + "outside/evil", data=b"x")],
    "dotdot inside": [directory("a"), member("a/../../outside/canary", data=b"x")],
    "dotdot dir": [directory("../outside", mode=0o777)],
    "absolute": [member("{outside}/evil", data=b"x")],
    "absolute dir": [directory("{outside}", mode=0o700, mtime=1)],
    "symlink to dotdot": [symlink("l", OUT), member("l/canary", data=b"x")],
    "absolute symlink": [symlink("l", "{outside}"), member("l/canary", data=b"x")],
    "symlink to root": [symlink("l", "/"), member("l{outside}/evil", data=b"x")],
    "symlink chain": [
        symlink("a", "b"), symlink("b", "c"), symlink("c", OUT), member("a/evil", data=b"x")
    ],
    "symlink loop": [symlink("a", "b"), symlink("b", "a"), member("a/evil", data=b"x")],
    "dotdot behind a symlink": [
        directory("d"), symlink("l", "d"), member("l/../../outside/evil", data=b"x")
    ],
    "dangling then dotdot": [symlink("l", "no/such/../../../outside"), member("l/evil", data=b"x")],
    "final symlink": [symlink("l", OUT + "/canary"), member("l", data=b"x")],
    "final symlink dir": [symlink("l", OUT), directory("l", mode=0o777)],
    "symlink mode": [symlink("l", OUT + "/canary"), member("l", data=b"x", mode=0o4777, uid=1)],
    "hardlink dotdot": [hardlink("h", OUT + "/canary"), member("h", data=b"x")],
    "hardlink absolute": [hardlink("h", "{outside}/canary"), member("h", data=b"x")],
    "hardlink through symlink": [symlink("l", OUT), hardlink("h", "l/canary"), member("h", data=b"x")],
    "hardlink to symlink": [
        symlink("l", OUT + "/canary"), hardlink("h", "l"), member("h", data=b"x", mode=0o777)
    ],
    "hardlink to the root": [hardlink("h", "/")],
    "dir becomes symlink": [
        directory("d"), member("d/x"), symlink("d", OUT), member("d/evil", data=b"x")
    ],
    "dir becomes symlink, cached": [
        member("d/x"), member("d/y"), symlink("d", OUT), member("d/canary", data=b"x")
    ],
    "whiteout through symlink": [symlink("l", OUT), member("l/.wh.canary")],
    "opaque through symlink": [symlink("l", OUT), member("l/.wh..wh..opq")],
    "whiteout of dotdot": [member(".wh.."), member("x")],
    "whiteout of dotdot dot": [member(".wh...")],
    "whiteout dotdot dir": [member("../outside/.wh.canary")],
    "opaque dotdot dir": [member("../outside/.wh..wh..opq")],
    "root is a symlink": [symlink(".", OUT), member("evil", data=b"x")],
    "root is a symlink, slash": [symlink("./", OUT), member("./evil", data=b"x")],
    "root is a hard link": [hardlink("./", OUT), member("evil")],
    "root is a file": [member("/", data=b"x")],
    "magic link": [symlink("l", "/proc/self/root"), member("l{outside}/evil", data=b"x")],
    "fd link": [symlink("l", "/proc/self/fd/3/.."), member("l/outside/evil", data=b"x")],
    "device through symlink": [symlink("l", OUT), device("l/evil", 1, 3)],
    "fifo through symlink": [symlink("l", OUT), member("l/evil", tarfile.FIFOTYPE)],
}


@pytest.mark.parametrize("whiteouts", ["overlay", "plain"])
@pytest.mark.parametrize("name", sorted(BREAKOUTS))
def test_breakouts(target, name, whiteouts):
    outside = str(target.parent / "outside")
    members = []
    for info, data in BREAKOUTS[name]:
        copy = tarfile.TarInfo(info.name.replace("{outside}", outside))
        for field in ("type", "mode", "uid", "gid", "size", "mtime", "devmajor", "devminor"):
            setattr(copy, field, getattr(info, field))
        copy.linkname = info.linkname.replace("{outside}", outside)
        members.append((copy, data))
    result = run_apply(target, make_tar(*members), whiteouts=whiteouts)
    assert result.get("code", 0) in (0, 3), result
    # The fixture compares what is outside.


def test_writing_through_a_link_stays_inside(target):
    """Links of the layer itself resolve with the target as the root, also while they dangle."""
    layer = make_tar(
        symlink("var/run", "/run"), member("var/run/pid", data=b"1"),
        symlink("lib", "usr/lib"), directory("usr/lib"), member("lib/libc", data=b"2"),
        symlink("up", "../../../../etc"), member("up/file", data=b"3"),
    )
    assert "error" not in run_apply(target, layer)
    assert (target / "run/pid").read_bytes() == b"1"
    assert (target / "usr/lib/libc").read_bytes() == b"2"
    assert (target / "etc/file").read_bytes() == b"3"


# Whiteouts.


def test_whiteouts_for_overlayfs(target):
    layer = make_tar(
        directory("etc"), member("etc/.wh.gone"), member("new/.wh.x"),
        directory("opaque"), member("opaque/.wh..wh..opq"), member("opaque/own"),
        member(".wh.again"), directory("again"), member("again/new"),
        member(".wh..wh.plnk/1.2"), member(".wh..wh.aufs"),
        member("both", data=b"1"), member(".wh.both"),
    )
    assert "error" not in run_apply(target, layer)
    assert is_whiteout(target / "etc/gone")
    assert is_whiteout(target / "new/x")
    assert os.getxattr(target / "opaque", "trusted.overlay.opaque") == b"y"
    assert (target / "opaque/own").exists()
    assert os.getxattr(target / "again", "trusted.overlay.opaque") == b"y"
    assert (target / "both").read_bytes() == b"1"
    assert sorted(os.listdir(target)) == ["again", "both", "etc", "new", "opaque"]


def test_whiteouts_for_overlayfs_of_users(target):
    layer = make_tar(member("d/.wh..wh..opq"), member(".wh.x"))
    assert "error" not in run_apply(target, layer, whiteouts="overlay-user")
    assert os.getxattr(target / "d", "user.overlay.opaque") == b"y"
    assert "trusted.overlay.opaque" not in os.listxattr(target / "d")
    assert is_whiteout(target / "x")


LOWER = make_tar(
    directory("a"), member("a/1"), member("a/2"), directory("a/sub"), member("a/sub/3"),
    directory("b"), member("b/1"), directory("c"), member("c/1"), member("file", data=b"lower"),
    symlink("link", "a"),
)
UPPER = make_tar(
    directory("a"), member("a/.wh.1"), member("a/new"), directory("b"), member("b/own"),
    member("b/.wh..wh..opq"), member(".wh.c"), member(".wh.link"), member(".wh.absent"),
)


def test_whiteouts_performed_equal_overlayfs(target):
    """plain on a full tree, and overlay over the lower layer, show the same tree."""
    plain, lower, upper, work, merged = (target / n for n in ("plain", "lower", "upper", "work", "merged"))
    for d in (plain, lower, upper, work, merged):
        d.mkdir()
    run_apply(plain, LOWER, whiteouts="plain")
    run_apply(plain, UPPER, whiteouts="plain")
    run_apply(lower, LOWER)
    run_apply(upper, UPPER)
    subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o",
         f"lowerdir={lower},upperdir={upper},workdir={work}", merged], check=True)
    try:
        names = sorted(snapshot_of(merged))
    finally:
        subprocess.run(["umount", merged], check=True)
    assert sorted(snapshot_of(plain)) == names
    assert names == ["a", "a/2", "a/new", "a/sub", "a/sub/3", "b", "b/own", "file"]


def test_whiteouts_equal_umoci(target, tmp_path_factory):
    if not shutil.which("umoci"):
        pytest.skip("umoci is not installed")
    image = tmp_path_factory.mktemp("image")
    blobs = image / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data):
        d = digest(data)
        (blobs / d[7:]).write_bytes(data)
        return d

    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest(LOWER), digest(UPPER)]},
    }).encode()
    layer_type = "application/vnd.oci.image.layer.v1.tar"
    manifest = json.dumps({
        "schemaVersion": 2,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": put(config), "size": len(config)},
        "layers": [{"mediaType": layer_type, "digest": put(x), "size": len(x)} for x in (LOWER, UPPER)],
    }).encode()
    (image / "index.json").write_text(json.dumps({
        "schemaVersion": 2,
        "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json",
                       "digest": put(manifest), "size": len(manifest),
                       "annotations": {"org.opencontainers.image.ref.name": "t"}}],
    }))
    (image / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    bundle = tmp_path_factory.mktemp("bundle") / "b"
    subprocess.run(["umoci", "unpack", "--image", f"{image}:t", bundle], check=True, capture_output=True)
    run_apply(target, LOWER, whiteouts="plain")
    run_apply(target, UPPER, whiteouts="plain")
    assert sorted(snapshot_of(target)) == sorted(snapshot_of(bundle / "rootfs"))
    shutil.rmtree(image)
    shutil.rmtree(bundle)


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", ".wh./x", "a/.wh.x/y", "a/.wh."])
def test_invalid_whiteouts(target, name):
    for whiteouts in ("overlay", "plain"):
        if "/x" in name or "/y" in name:
            layer = raw_header(name.encode()) + END
        else:
            layer = make_tar(member(name))
        assert run_apply(target, layer, whiteouts=whiteouts)["code"] == 3


def test_fake_whiteout_device(target):
    assert run_apply(target, make_tar(device("x", 0, 0)))["code"] == 3


def test_hardlink_to_a_whiteout(target):
    assert run_apply(target, make_tar(member(".wh.x"), hardlink("y", "x")))["code"] == 3


def test_into_a_mounted_overlay(target):
    lower, upper, work, merged = (target / n for n in ("lower", "upper", "work", "merged"))
    for d in (lower, upper, work, merged):
        d.mkdir()
    run_apply(lower, LOWER)
    subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o",
         f"lowerdir={lower},upperdir={upper},workdir={work}", merged], check=True)
    try:
        assert "error" not in run_apply(merged, UPPER, "--sync", whiteouts="plain")
        names = sorted(snapshot_of(merged))
    finally:
        subprocess.run(["umount", merged], check=True)
    assert names == ["a", "a/2", "a/new", "a/sub", "a/sub/3", "b", "b/own", "file"]


def test_into_a_bind_mount(target):
    source, mounted = target / "source", target / "mounted"
    source.mkdir()
    mounted.mkdir()
    subprocess.run(["mount", "--bind", source, mounted], check=True)
    try:
        assert "error" not in run_apply(mounted, LOWER, whiteouts="plain")
    finally:
        subprocess.run(["umount", mounted], check=True)
    assert (source / "file").read_bytes() == b"lower"


def test_implied_directories_look_like_those_below(target):
    upper, near, far = (target / n for n in ("upper", "near", "far"))
    for d in (upper, near, far):
        d.mkdir()
    run_apply(far, make_tar(directory("tmp", mode=0o1777), directory("home/u", mode=0o700, uid=5, gid=6)))
    run_apply(near, make_tar(directory("tmp", mode=0o1770)))
    layer = make_tar(member("tmp/x"), member("home/u/.profile"), member("fresh/y"))
    assert "error" not in run_apply(upper, layer, parents=[near, far])
    assert os.stat(upper / "tmp").st_mode & 0o7777 == 0o1770
    st = os.stat(upper / "home/u")
    assert (st.st_mode & 0o7777, st.st_uid, st.st_gid) == (0o700, 5, 6)
    assert os.stat(upper / "fresh").st_mode & 0o7777 == 0o755
