# SPDX-License-Identifier: Apache-2.0
"""Namespaces, containers, images, leases, events and introspection, by raw calls.

Tests that take `both` also run against the distribution's containerd, so that codes and sentences are compared
with the real thing and not with what somebody remembers of it.
"""
import datetime
import functools
import os
import re
import threading
import time

import grpc
import pytest

from harness.api import any_of, message_class, pool
from harness.memory import private_kb

NAMESPACES = "containerd.services.namespaces.v1.Namespaces"
CONTAINERS = "containerd.services.containers.v1.Containers"
IMAGES = "containerd.services.images.v1.Images"
LEASES = "containerd.services.leases.v1.Leases"
EVENTS = "containerd.services.events.v1.Events"
INTROSPECTION = "containerd.services.introspection.v1.Introspection"
HEALTH = "grpc.health.v1.Health"

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
EXISTS = grpc.StatusCode.ALREADY_EXISTS
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED

DIGEST = "sha256:" + "a" * 64
SPEC = {"type_url": "types.containerd.io/opencontainers/runtime-spec/1/Spec", "value": b"{}"}
IDENTIFIER = "^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$"


def fails(code, sentence, call, *args, **options):
    """The call fails with this code and sentence (a string, or a compiled pattern)."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*args, **options)
    assert (caught.value.code(), caught.value.details()) == (
        code, sentence if isinstance(sentence, str) else caught.value.details())
    if not isinstance(sentence, str):
        assert sentence.search(caught.value.details())


def fill(message, fields):
    """Sets fields from a dict, an Any like any other message (which JSON cannot do for types it does not know)."""
    for key, value in fields.items():
        field = getattr(message, key)
        if isinstance(value, dict) and hasattr(field, "DESCRIPTOR"):
            field.SetInParent()
            fill(field, value)
        elif isinstance(value, dict):
            for k, v in value.items():
                if isinstance(v, dict):
                    fill(field[k], v)
                elif hasattr(v, "DESCRIPTOR"):
                    field[k].CopyFrom(v)
                else:
                    field[k] = v
        elif isinstance(value, (list, tuple)):
            field.extend(value)
        elif hasattr(value, "DESCRIPTOR"):
            field.CopyFrom(value)
        else:
            setattr(message, key, value)
    return message


def ask(daemon, path, request=None, **options):
    """One call; the request is a message or a dict for fill()."""
    if isinstance(request, dict):
        service, method = path.rsplit("/", 1)
        kind = pool().FindServiceByName(service).FindMethodByName(method).input_type.full_name
        request = fill(message_class(kind)(), request)
    return daemon.api.call(path, request, **options)


def any_message(url, value=b""):
    result = message_class("google.protobuf.Any")()
    result.type_url, result.value = url, value
    return result


def container(id, **fields):
    return {"container": {"id": id, "runtime": {"name": "io.containerd.runc.v2"}, "spec": SPEC, **fields}}


def image(name, digest=DIGEST, **fields):
    return {"image": {"name": name, "target": {"media_type": "application/x", "digest": digest, "size": 7}, **fields}}


# Namespaces of requests


@pytest.mark.parametrize("path", [CONTAINERS + "/List", IMAGES + "/List", LEASES + "/List",
                                  "containerd.services.content.v1.Content/ListStatuses",
                                  "containerd.services.tasks.v1.Tasks/List"])
def test_namespace_is_required(both, path):
    fails(PRECONDITION, "namespace is required: failed precondition", ask, both, path, namespace=False)


@pytest.mark.parametrize("namespace, sentence", [
    ("a b", f'namespace validation: identifier "a b" must match {IDENTIFIER}: invalid argument'),
    ("../x", f'namespace validation: identifier "../x" must match {IDENTIFIER}: invalid argument'),
    ("x" * 77, 'namespace validation: identifier "' + "x" * 77
     + '" greater than maximum length (76 characters): invalid argument'),
])
def test_namespace_is_validated(both, namespace, sentence):
    fails(INVALID, sentence, ask, both, CONTAINERS + "/List", namespace=namespace)


def test_unknown_methods_and_services(daemon):
    unary = daemon.api.channel.unary_unary
    fails(UNIMPLEMENTED, "unknown service containerd.services.transfer.v1.Transfer",
          unary("/containerd.services.transfer.v1.Transfer/Transfer"), b"")
    fails(UNIMPLEMENTED, "unknown method Fly for service " + CONTAINERS, unary(f"/{CONTAINERS}/Fly"), b"")


# Namespaces


def test_namespaces(both):
    call = functools.partial(ask, both)
    call(NAMESPACES + "/Create", {"namespace": {"name": "zeta", "labels": {"a": "1"}}}, namespace="zeta")
    call(NAMESPACES + "/Create", {"namespace": {"name": "alpha"}}, namespace="alpha")
    fails(EXISTS, 'namespace "zeta": already exists', call, NAMESPACES + "/Create", {"namespace": {"name": "zeta"}})
    names = [n.name for n in call(NAMESPACES + "/List", namespace=False).namespaces]
    assert [n for n in names if n in ("alpha", "zeta")] == ["alpha", "zeta"]
    got = call(NAMESPACES + "/Get", {"name": "zeta"}, namespace=False).namespace
    assert (got.name, dict(got.labels)) == ("zeta", {"a": "1"})
    missing = call(NAMESPACES + "/Get", {"name": "nowhere"}, namespace=False).namespace
    assert (missing.name, dict(missing.labels)) == ("nowhere", {})


def test_namespace_names_and_labels(both):
    call = functools.partial(ask, both)
    fails(INVALID, "identifier must not be empty: invalid argument", call, NAMESPACES + "/Create",
          {"namespace": {"name": ""}})
    fails(INVALID, f'identifier "a/b" must match {IDENTIFIER}: invalid argument', call, NAMESPACES + "/Create",
          {"namespace": {"name": "a/b"}})
    fails(INVALID, re.compile(r"^namespace\.Labels: label key and value (length \(4097 bytes\) )?greater than maximum "
                              r"size \(4096 bytes\), key: k: invalid argument$"),
          call, NAMESPACES + "/Create", {"namespace": {"name": "long", "labels": {"k": "v" * 4096}}})


def test_namespace_update(both):
    def update(labels, *paths):
        ask(both, NAMESPACES + "/Update",
            {"namespace": {"name": "n", "labels": labels}, "update_mask": {"paths": paths}}, namespace="n")
        return dict(ask(both, NAMESPACES + "/Get", {"name": "n"}).namespace.labels)

    ask(both, NAMESPACES + "/Create", {"namespace": {"name": "n", "labels": {"a": "1", "b.c/d": "2"}}},
                  namespace="n")
    assert update({"b.c/d": "3", "e": "4"}, "labels.b.c/d") == {"a": "1", "b.c/d": "3"}
    assert update({}, "labels.a") == {"b.c/d": "3"}
    assert update({"only": "this", "not": ""}) == {"only": "this"}
    fails(INVALID, 'cannot update "name" field', update, {}, "name")


def test_namespace_delete(both):
    call = functools.partial(ask, both)
    fails(NOT_FOUND, 'namespace "x": not found', call, NAMESPACES + "/Delete", {"name": "x"})
    call(IMAGES + "/Create", image("i"), namespace="x")
    call(CONTAINERS + "/Create", container("c"), namespace="x")
    assert "x" in [n.name for n in call(NAMESPACES + "/List").namespaces]
    fails(PRECONDITION, 'namespace "x" must be empty, but it still has images, containers: failed precondition',
          call, NAMESPACES + "/Delete", {"name": "x"})
    call(IMAGES + "/Delete", {"name": "i"}, namespace="x")
    call(CONTAINERS + "/Delete", {"id": "c"}, namespace="x")
    call(NAMESPACES + "/Delete", {"name": "x"})
    assert "x" not in [n.name for n in call(NAMESPACES + "/List").namespaces]


# Containers


def test_container_life(both):
    call = functools.partial(ask, both)
    options = {"type_url": "containerd.runc.v1.Options", "value": b"\x08\x01"}
    given = container("c1", image="img", labels={"k": "v"}, snapshotter="overlayfs", snapshot_key="c1",
                      extensions={"x": options}, runtime={"name": "io.containerd.runc.v2", "options": options})
    created = call(CONTAINERS + "/Create", given).container
    got = call(CONTAINERS + "/Get", {"id": "c1"}).container
    assert created == got
    assert (got.id, got.image, got.snapshotter, got.snapshot_key) == ("c1", "img", "overlayfs", "c1")
    assert got.created_at == got.updated_at and abs(got.created_at.seconds - time.time()) < 60
    assert got.runtime.options.value == b"\x08\x01" and got.extensions["x"].type_url == "containerd.runc.v1.Options"
    assert got.spec.value == b"{}"
    fails(EXISTS, 'container "c1": already exists', call, CONTAINERS + "/Create", given)
    fails(NOT_FOUND, 'container "c1" in namespace "other": not found', call, CONTAINERS + "/Get", {"id": "c1"},
          namespace="other")
    fails(NOT_FOUND, 'cannot delete container "c1" in namespace "other": not found', call, CONTAINERS + "/Delete",
          {"id": "c1"}, namespace="other")
    fails(NOT_FOUND, "container c2: not found", call, CONTAINERS + "/Delete", {"id": "c2"})
    call(CONTAINERS + "/Delete", {"id": "c1"})
    fails(NOT_FOUND, 'container "c1" in namespace "default": not found', call, CONTAINERS + "/Get", {"id": "c1"})


@pytest.mark.parametrize("request_, sentence", [
    (container(""), "container.ID: identifier must not be empty: invalid argument"),
    (container("../x"), f'container.ID: identifier "../x" must match {IDENTIFIER}: invalid argument'),
    (container("x" * 77), 'container.ID: identifier "' + "x" * 77
     + '" greater than maximum length (76 characters): invalid argument'),
    (container("a", runtime={}), "container.Runtime.Name must be set: invalid argument"),
    (container("a", snapshot_key="k"),
     "container.Snapshotter must be set if container.SnapshotKey is set: invalid argument"),
    (container("a", extensions={"": SPEC}), "container.Extension keys must not be zero-length: invalid argument"),
])
def test_container_validation(both, request_, sentence):
    fails(INVALID, "create container failed validation: " + sentence, ask, both, CONTAINERS + "/Create", request_)


def test_container_needs_a_spec(daemon):
    fails(INVALID, "create container failed validation: container.Spec must be set: invalid argument", ask, daemon,
          CONTAINERS + "/Create", {"container": {"id": "a", "runtime": {"name": "r"}}})


def test_long_id_is_refused(daemon):
    fails(INVALID, re.compile("greater than maximum length"), ask, daemon, CONTAINERS + "/Create",
          container("x" * 10000))


def test_container_label_limit(daemon):
    fails(INVALID, re.compile(r"label key and value length \(5001 bytes\) greater than maximum size \(4096 bytes\)"),
          ask, daemon, CONTAINERS + "/Create", container("a", labels={"k": "v" * 5000}))


def update_container(daemon, id, paths, **fields):
    return ask(daemon, CONTAINERS + "/Update", {**container(id, **fields), "update_mask": {"paths": paths}}).container


def test_container_update(both):
    fails(NOT_FOUND, 'cannot update container "c" in namespace "default": not found', update_container, both, "c", [])
    created = ask(both, CONTAINERS + "/Create", container("c", labels={"a": "1", "b.c/d": "2"})).container
    fails(NOT_FOUND, 'container "d": not found', update_container, both, "d", [])
    got = update_container(both, "c", ["labels.b.c/d"], labels={"b.c/d": "3", "x": "y"}, image="no")
    assert (dict(got.labels), got.image) == ({"a": "1", "b.c/d": "3"}, "")
    update_container(both, "c", ["labels.a"])
    got = ask(both, CONTAINERS + "/Get", {"id": "c"}).container
    assert dict(got.labels) == {"b.c/d": "3"}
    assert got.created_at == created.created_at and got.updated_at != created.updated_at
    got = update_container(both, "c", ["image", "snapshotkey", "extensions.e.f"], image="new",
                           extensions={"e.f": any_message("t", b"v")})
    assert (got.image, got.extensions["e.f"].value) == ("new", b"v")
    fails(INVALID, 'cannot update "runtime" field on "c": invalid argument', update_container, both, "c", ["runtime"])
    fails(INVALID, "container.Snapshotter field is immutable: invalid argument", update_container, both, "c", [],
          snapshotter="native")
    fails(INVALID, "container.Runtime.Name field is immutable: invalid argument", update_container, both, "c", [],
          runtime={"name": "other"})
    got = update_container(both, "c", [], labels={"all": "new"})
    assert (dict(got.labels), got.image, len(got.extensions)) == ({"all": "new"}, "", 0)
    fails(INVALID, "Container.ID required", update_container, both, "", [])


@pytest.mark.parametrize("filters, ids", [
    ([], "abc"), ([""], "abc"), (["id==a"], "a"), (["id==a", "id==b"], "ab"), (["image==x"], "ac"),
    (["image==x,id!=a"], "c"), (["id~=[ab]"], "ab"), (["labels.\"l.m/n\"==1"], "b"), (["labels.\"l.m/n\""], "b"),
    (["labels.missing!=1"], "abc"), (["runtime.name==io.containerd.runc.v2"], "abc"), (["nonsense==1"], ""),
])
def test_container_filters(both, filters, ids):
    for id, fields in {"c": {"image": "x"}, "a": {"image": "x"}, "b": {"labels": {"l.m/n": "1"}}}.items():
        ask(both, CONTAINERS + "/Create", container(id, **fields))
    assert "".join(c.id for c in ask(both, CONTAINERS + "/List", {"filters": filters}).containers) == ids
    assert "".join(m.container.id for m in both.api.stream(CONTAINERS + "/ListStream", {"filters": filters})) == ids


@pytest.mark.parametrize("filter_", ["id=x", "id==", "==", 'id=="', "id==a,", "id==a b"])
def test_bad_filters(both, filter_):
    fails(INVALID, re.compile(r"^filters: parse error: \[.*\]: .*: invalid argument$"), ask, both,
          CONTAINERS + "/List", {"filters": [filter_]})


def test_list_stream_of_many(daemon):
    for i in range(300):
        ask(daemon, CONTAINERS + "/Create", container(f"c{i:04}", labels={"pad": "x" * 4000}))
    got = [m.container.id for m in daemon.api.stream(CONTAINERS + "/ListStream")]
    assert got == [f"c{i:04}" for i in range(300)]
    left_early = daemon.api.stream(CONTAINERS + "/ListStream")
    next(left_early)
    left_early.cancel()
    assert len(ask(daemon, CONTAINERS + "/List").containers) == 300


# Images


def test_image_life(both):
    call = functools.partial(ask, both)
    fails(NOT_FOUND, 'image "i:1": not found', call, IMAGES + "/Update", image("i:1"))
    created = call(IMAGES + "/Create", image("i:1", labels={"a": "1"})).image
    assert created.target.digest == DIGEST and created.created_at == created.updated_at
    assert call(IMAGES + "/Get", {"name": "i:1"}).image == created
    fails(EXISTS, 'image "i:1": already exists', call, IMAGES + "/Create", image("i:1"))
    call(IMAGES + "/Create", image("a"))
    assert [i.name for i in call(IMAGES + "/List").images] == ["a", "i:1"]
    assert [i.name for i in call(IMAGES + "/List", {"filters": ["name==a"]}).images] == ["a"]
    assert [i.name for i in call(IMAGES + "/List", {"filters": ["labels.a==1"]}).images] == ["i:1"]
    assert len(call(IMAGES + "/List", {"filters": [f'target.digest=="{DIGEST}"']}).images) == 2
    call(IMAGES + "/Delete", {"name": "i:1", "sync": True})
    fails(NOT_FOUND, 'image "i:1": not found', call, IMAGES + "/Delete", {"name": "i:1"})
    fails(NOT_FOUND, 'image "i:1": not found', call, IMAGES + "/Get", {"name": "i:1"})


@pytest.mark.parametrize("target, sentence", [
    ({"digest": "sha256:12", "size": 1, "media_type": "x"},
     'Target.Digest "sha256:12" invalid: invalid checksum digest length: invalid argument'),
    ({"digest": "", "size": 1, "media_type": "x"},
     'Target.Digest "" invalid: invalid checksum digest format: invalid argument'),
    ({"digest": DIGEST, "media_type": "x"}, "Target.Size must be greater than zero: invalid argument"),
    ({"digest": DIGEST, "size": -1, "media_type": "x"}, "Target.Size must be greater than zero: invalid argument"),
    ({"digest": DIGEST, "size": 1}, "Target.MediaType must be set: invalid argument"),
])
def test_image_targets(both, target, sentence):
    fails(INVALID, sentence, ask, both, IMAGES + "/Create", {"image": {"name": "i", "target": target}})


def test_image_update(both):
    def update(paths, **fields):
        return ask(both, IMAGES + "/Update", {**image("i", **fields), "update_mask": {"paths": paths}}).image

    other = "sha256:" + "b" * 64
    created = ask(both, IMAGES + "/Create", image("i", labels={"a": "1", "b.c": "2"})).image
    got = update(["labels.b.c"], labels={"b.c": "3", "d": "4"}, digest=other)
    assert (dict(got.labels), got.target.digest) == ({"a": "1", "b.c": "3"}, DIGEST)
    update(["labels.a"])
    assert dict(ask(both, IMAGES + "/Get", {"name": "i"}).image.labels) == {"b.c": "3"}
    assert update(["target"], digest=other).target.digest == other
    fails(INVALID, 'cannot update "name" field on image "i": invalid argument', update, ["name"])
    got = update([], labels={"only": "this"})
    assert (dict(got.labels), got.target.digest, got.created_at) == ({"only": "this"}, DIGEST, created.created_at)


def test_image_delete_of_a_target(daemon):
    ask(daemon, IMAGES + "/Create", image("i"))
    other = "sha256:" + "b" * 64
    fails(NOT_FOUND, f'image "i" has target {DIGEST}, not {other}: not found', ask, daemon, IMAGES + "/Delete",
          {"name": "i", "target": {"digest": other}})
    ask(daemon, IMAGES + "/Delete", {"name": "i", "target": {"digest": DIGEST}})


# Leases


def test_leases(both):
    call = functools.partial(ask, both)
    lease = call(LEASES + "/Create", {"id": "l1", "labels": {"a": "1"}}).lease
    assert (lease.id, dict(lease.labels)) == ("l1", {"a": "1"}) and abs(lease.created_at.seconds - time.time()) < 60
    fails(EXISTS, 'lease "l1": already exists', call, LEASES + "/Create", {"id": "l1"})
    call(LEASES + "/Create", {"id": "l2"})
    assert [le.id for le in call(LEASES + "/List").leases] == ["l1", "l2"]
    assert [le.id for le in call(LEASES + "/List", {"filters": ["labels.a==1"]}).leases] == ["l1"]
    assert [le.id for le in call(LEASES + "/List", {"filters": ["id==l2"]}).leases] == ["l2"]
    assert [le.id for le in call(LEASES + "/List", namespace="other").leases] == []
    call(LEASES + "/Delete", {"id": "l1", "sync": True})
    fails(NOT_FOUND, 'lease "l1": not found', call, LEASES + "/Delete", {"id": "l1"})


def test_lease_without_id(daemon):
    ids = {ask(daemon, LEASES + "/Create").lease.id for _ in range(20)}
    assert len(ids) == 20 and all(re.match(r"^\d+-[\w-]{4}$", id) for id in ids)


def test_lease_resources(both):
    def resource(path, id, type, lease="l"):
        return ask(both, LEASES + path, {"id": lease, "resource": {"id": id, "type": type}})

    ask(both, LEASES + "/Create", {"id": "l"})
    resource("/AddResource", DIGEST, "content")
    resource("/AddResource", DIGEST, "content")
    resource("/AddResource", "ref", "ingests")
    resource("/AddResource", "key", "snapshots/overlayfs")
    listed = ask(both, LEASES + "/ListResources", {"id": "l"}).resources
    assert sorted((r.type, r.id) for r in listed) == [("content", DIGEST), ("ingests", "ref"),
                                                      ("snapshots/overlayfs", "key")]
    resource("/DeleteResource", "ref", "ingests")
    resource("/DeleteResource", "ref", "ingests")
    assert len(ask(both, LEASES + "/ListResources", {"id": "l"}).resources) == 2
    fails(NOT_FOUND, 'lease "no": not found', resource, "/AddResource", DIGEST, "content", lease="no")
    fails(NOT_FOUND, 'lease "no": not found', ask, both, LEASES + "/ListResources", {"id": "no"})
    fails(UNIMPLEMENTED, "resource type boats not supported yet: not implemented", resource, "/AddResource", "x",
          "boats")
    fails(INVALID, re.compile("^invalid content resource id x: .*: invalid argument$"), resource, "/AddResource", "x",
          "content")
    fails(INVALID, "invalid snapshot resource type snapshots: invalid argument", resource, "/AddResource", "x",
          "snapshots")


def test_lease_expires_on_an_idle_daemon(daemon):
    expiry = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=1.5)
    ask(daemon, LEASES + "/Create", {"id": "l", "labels": {"containerd.io/gc.expire": expiry.isoformat()}})
    ask(daemon, LEASES + "/Create", {"id": "kept"})
    assert len(ask(daemon, LEASES + "/List").leases) == 2
    deadline = time.monotonic() + 10
    while len(ask(daemon, LEASES + "/List").leases) == 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [le.id for le in ask(daemon, LEASES + "/List").leases] == ["kept"]


# What is stored outlives the daemon.


def test_restart_keeps_everything(daemon):
    ask(daemon, NAMESPACES + "/Create", {"namespace": {"name": "n", "labels": {"a": "1"}}})
    ask(daemon, CONTAINERS + "/Create", container("c", labels={"k": "v"}))
    ask(daemon, IMAGES + "/Create", image("i"))
    ask(daemon, LEASES + "/Create", {"id": "l"})
    before = ask(daemon, CONTAINERS + "/Get", {"id": "c"})
    daemon.kill()
    daemon.start()
    assert ask(daemon, CONTAINERS + "/Get", {"id": "c"}) == before
    assert dict(ask(daemon, NAMESPACES + "/Get", {"name": "n"}).namespace.labels) == {"a": "1"}
    assert ask(daemon, IMAGES + "/Get", {"name": "i"}).image.target.digest == DIGEST
    assert len(ask(daemon, LEASES + "/List").leases) == 1


# Events


class Subscriber:
    """Collects envelopes until it is closed."""

    def __init__(self, daemon, filters=()):
        self.call = daemon.api.stream(EVENTS + "/Subscribe", {"filters": list(filters)}, timeout=None)
        self.envelopes = []
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self.collect)
        self.thread.start()
        self.wait_until_ready(daemon)

    def collect(self):
        try:
            for envelope in self.call:
                with self.changed:
                    self.envelopes.append(envelope)
                    self.changed.notify()
        except grpc.RpcError:
            pass

    @staticmethod
    def wait_until_ready(daemon):
        # Requests of one connection are taken in order; the first of another kind that is answered proves it.
        ask(daemon, "containerd.services.version.v1.Version/Version")
        time.sleep(0.1)

    def wait(self, n):
        with self.changed:
            self.changed.wait_for(lambda: len(self.envelopes) >= n, timeout=5)
            return list(self.envelopes)

    def topics(self, n):
        return [e.topic for e in self.wait(n)]

    def close(self):
        self.call.cancel()
        self.thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def unpack(envelope):
    message = message_class(envelope.event.type_url)()
    message.ParseFromString(envelope.event.value)
    return message


def test_events_of_the_daemon(both):
    call = functools.partial(ask, both)
    with Subscriber(both) as all_:
        call(CONTAINERS + "/Create", container("c", image="img", labels={"k": "v"}), namespace="ns")
        call(CONTAINERS + "/Delete", {"id": "c"}, namespace="ns")
        call(IMAGES + "/Create", image("i", labels={"a": "b"}), namespace="ns")
        call(IMAGES + "/Update", image("i", labels={"a": "c"}), namespace="ns")
        call(IMAGES + "/Delete", {"name": "i"}, namespace="ns")
        call(NAMESPACES + "/Create", {"namespace": {"name": "ns2", "labels": {"x": "y"}}}, namespace="ns2")
        call(NAMESPACES + "/Delete", {"name": "ns2"}, namespace="ns2")
        got = all_.wait(7)
    assert [(e.namespace, e.topic, e.event.type_url) for e in got] == [
        ("ns", "/containers/create", "containerd.events.ContainerCreate"),
        ("ns", "/containers/delete", "containerd.events.ContainerDelete"),
        ("ns", "/images/create", "containerd.services.images.v1.ImageCreate"),
        ("ns", "/images/update", "containerd.services.images.v1.ImageUpdate"),
        ("ns", "/images/delete", "containerd.services.images.v1.ImageDelete"),
        ("ns2", "/namespaces/create", "containerd.events.NamespaceCreate"),
        ("ns2", "/namespaces/delete", "containerd.events.NamespaceDelete"),
    ]
    created = unpack(got[0])
    assert (created.id, created.image, created.runtime.name) == ("c", "img", "io.containerd.runc.v2")
    assert dict(unpack(got[3]).labels) == {"a": "c"} and dict(unpack(got[5]).labels) == {"x": "y"}
    assert all(abs(e.timestamp.seconds - time.time()) < 60 for e in got)


def test_publish_and_filters(both):
    exit_event = any_of(message_class("containerd.events.TaskExit")(container_id="c1", id="e1", pid=7))
    create_event = any_of(message_class("containerd.events.TaskCreate")(
        container_id="c2", io=message_class("containerd.events.TaskIO")(stdin="/in")))
    labelled = any_of(message_class("containerd.events.ContainerUpdate")(id="c3", labels={"a.b": "1"}))
    filters = {
        "all": [], "topic": ['topic=="/tasks/exit"'], "moby": ["namespace==moby,topic~=|^/tasks/|"],
        "field": ["event.container_id==c1"], "inner": ["event.io.stdin==\"/in\""], "label": ["event.labels.a.b==1"],
        "either": ["event.id==e1", "event.labels.a.b"], "none": ["event.pid==7"], "absent": ["event.nothing"],
    }
    subscribers = {name: Subscriber(both, f) for name, f in filters.items()}
    try:
        for namespace, topic, event in (("moby", "/tasks/exit", exit_event), ("default", "/tasks/create", create_event),
                                        ("k8s.io", "/containers/update", labelled)):
            ask(both, EVENTS + "/Publish", {"topic": topic, "event": event}, namespace=namespace)
        assert subscribers["all"].topics(3) == ["/tasks/exit", "/tasks/create", "/containers/update"]
        time.sleep(0.2)
        got = {name: [e.topic for e in s.envelopes] for name, s in subscribers.items()}
    finally:
        for s in subscribers.values():
            s.close()
    del got["all"]
    assert got == {
        "topic": ["/tasks/exit"], "moby": ["/tasks/exit"], "field": ["/tasks/exit"], "inner": ["/tasks/create"],
        "label": ["/containers/update"], "either": ["/tasks/exit", "/containers/update"], "none": [], "absent": [],
    }


@pytest.mark.parametrize("topic, sentence", [
    ("", 'envelope topic "": must not be empty: invalid argument'),
    ("x", 'envelope topic "x": must start with \'/\': invalid argument'),
    ("/", 'envelope topic "/": must have at least one component: invalid argument'),
    ("/a b", f'envelope topic "/a b": failed validation on component "a b": identifier "a b" must match {IDENTIFIER}: '
     "invalid argument"),
    ("/a/", 'envelope topic "/a/": failed validation on component "": identifier must not be empty: invalid argument'),
])
def test_topics_are_validated(both, topic, sentence):
    fails(INVALID, sentence, ask, both, EVENTS + "/Publish", {"topic": topic, "event": {"type_url": "x"}})


def test_publish_needs_a_namespace(both):
    fails(PRECONDITION, "failed publishing event: namespace is required: failed precondition", ask, both,
          EVENTS + "/Publish", {"topic": "/x", "event": {"type_url": "x"}}, namespace=False)


def test_forward(both):
    def forward(**fields):
        envelope = {"namespace": "ns", "topic": "/tasks/exit", "timestamp": {"seconds": 1767323045, "nanos": 6},
                    "event": {"type_url": "odd.Type", "value": b"\0\1"}, **fields}
        ask(both, EVENTS + "/Forward", {"envelope": {k: v for k, v in envelope.items() if v is not None}},
                      namespace=False)

    with Subscriber(both) as all_:
        forward()
        got = all_.wait(1)[0]
    assert (got.namespace, got.topic, got.event.type_url, got.event.value) == ("ns", "/tasks/exit", "odd.Type", b"\0\1")
    assert (got.timestamp.seconds, got.timestamp.nanos) == (1767323045, 6)
    fails(INVALID, re.compile("^event envelope has invalid namespace: .*: invalid argument$"), forward, namespace="a b")
    fails(INVALID, re.compile("must start with '/'"), forward, topic="x")


def test_forward_needs_a_time(daemon):
    fails(INVALID, "timestamp must be set on forwarded event: invalid argument", ask, daemon, EVENTS + "/Forward",
          {"envelope": {"namespace": "ns", "topic": "/x"}})


def test_subscribe_refuses_bad_filters(daemon):
    fails(INVALID, re.compile("^filters: parse error"), lambda: next(daemon.api.stream(EVENTS + "/Subscribe",
                                                                                     {"filters": ["topic==/x"]})))


def test_subscriber_that_does_not_read_is_ended(daemon):
    """The stream ends with ResourceExhausted, others are not held up, and memory stays bounded."""
    stuck = daemon.api.stream(EVENTS + "/Subscribe", {}, timeout=None)
    Subscriber.wait_until_ready(daemon)
    event = any_message("big", b"x" * 65536)
    request = {"topic": "/big", "event": event}
    started = time.monotonic()
    limit_kb = private_kb(daemon.pid) + 24 * 1024
    for _ in range(1000):
        ask(daemon, EVENTS + "/Publish", request)
    assert time.monotonic() - started < 20
    assert private_kb(daemon.pid) < limit_kb
    with pytest.raises(grpc.RpcError) as caught:
        for _ in stuck:
            pass
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    with Subscriber(daemon) as fresh:
        ask(daemon, EVENTS + "/Publish", request)
        assert fresh.topics(1) == ["/big"]


# Introspection, health


def test_plugins(both):
    plugins = ask(both, INTROSPECTION + "/Plugins", namespace=False).plugins
    ids = [(p.type, p.id) for p in plugins]
    for expected in [("io.containerd.content.v1", "content"), ("io.containerd.snapshotter.v1", "overlayfs"),
                     ("io.containerd.metadata.v1", "bolt"), ("io.containerd.runtime.v2", "task"),
                     ("io.containerd.grpc.v1", "tasks"), ("io.containerd.service.v1", "tasks-service")]:
        assert expected in ids
    overlay, = ask(both, INTROSPECTION + "/Plugins",
                             {"filters": ["type==io.containerd.snapshotter.v1, id==overlayfs"]}).plugins
    assert overlay.platforms[0].os == "linux" and overlay.platforms[0].architecture
    assert overlay.exports["root"] == f"{both.root}/io.containerd.snapshotter.v1.overlayfs"
    assert [p.id for p in ask(both, INTROSPECTION + "/Plugins", {"filters": ["id==bolt", "id==walking"]}).plugins
            ] == ["bolt", "walking"]


def test_server(both):
    first = ask(both, INTROSPECTION + "/Server", namespace=False)
    assert re.match("^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$", first.uuid)
    assert (both.root / "io.containerd.grpc.v1.introspection" / "uuid").read_text() == first.uuid
    both.restart()
    assert ask(both, INTROSPECTION + "/Server", namespace=False).uuid == first.uuid


def test_first_questions_for_the_uuid_agree(daemon):
    call = daemon.api.channel.unary_unary(f"/{INTROSPECTION}/Server")
    answers = [call.future(b"") for _ in range(20)]
    assert len({answer.result(timeout=10) for answer in answers}) == 1


def test_server_pid(daemon):
    server = ask(daemon, INTROSPECTION + "/Server", namespace=False)
    assert (server.pid, server.pidns) == (daemon.pid, os.stat("/proc/self/ns/pid").st_ino)


def test_health(both):
    assert ask(both, HEALTH + "/Check", namespace=False).status == 1
    fails(NOT_FOUND, "unknown service", ask, both, HEALTH + "/Check", {"service": "x"}, namespace=False)
    watch = both.api.stream(HEALTH + "/Watch", namespace=False)
    assert next(watch).status == 1
    watch.cancel()
    watch = both.api.stream(HEALTH + "/Watch", {"service": "x"}, namespace=False)
    assert next(watch).status == 3
    watch.cancel()
