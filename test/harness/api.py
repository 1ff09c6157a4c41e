# SPDX-License-Identifier: Apache-2.0
"""A polite gRPC client made of the project's own .proto files, without generated modules.

    api = Api("/run/x.sock")
    reply = api.call("containerd.services.version.v1.Version/Version")
    reply = api.call("containerd.services.containers.v1.Containers/Get", {"id": "c1"}, namespace="default")
    for message in api.stream("containerd.services.events.v1.Events/Subscribe", {}): ...

Requests are dicts (as google.protobuf.json_format reads them, field names as in the .proto), or messages
of api.message("containerd.types.Mount").
"""
import functools
import os
import pathlib
import subprocess
import tempfile

# Its handlers of fork() wait for each other for ever in Debian 13; tests that fork use no gRPC in the child.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import grpc  # noqa: E402
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory  # noqa: E402

PROTO_DIR = pathlib.Path(__file__).resolve().parents[2] / "api"


@functools.lru_cache(maxsize=None)
def pool():
    """All descriptors of api/, compiled once a session."""
    with tempfile.TemporaryDirectory() as tmp:
        out = os.path.join(tmp, "set")
        names = sorted(p.name for p in PROTO_DIR.glob("*.proto"))
        subprocess.run(["protoc", f"-I{PROTO_DIR}", "-I/usr/include", "--include_imports",
                        f"--descriptor_set_out={out}", *names], check=True)
        with open(out, "rb") as file:
            files = descriptor_pb2.FileDescriptorSet.FromString(file.read())
    result = descriptor_pool.DescriptorPool()
    for file in files.file:
        result.Add(file)
    return result


@functools.lru_cache(maxsize=None)
def message_class(name):
    descriptor = pool().FindMessageTypeByName(name)
    return message_factory.MessageFactory(pool()).GetPrototype(descriptor)


def any_of(message):
    """A google.protobuf.Any with the bare name that containerd's peers use."""
    result = message_class("google.protobuf.Any")()
    result.type_url = message.DESCRIPTOR.full_name
    result.value = message.SerializeToString()
    return result


class Api:
    def __init__(self, address, namespace="default"):
        self.address = address
        self.namespace = namespace
        self.channel = grpc.insecure_channel(
            "unix://" + address,
            options=[("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20),
                     ("grpc.use_local_subchannel_pool", 1)])

    def close(self):
        self.channel.close()

    @staticmethod
    def message(name, **fields):
        return message_class(name)(**fields)

    def _method(self, path):
        service, name = path.rsplit("/", 1)
        method = pool().FindServiceByName(service).FindMethodByName(name)
        return method, message_class(method.input_type.full_name), message_class(method.output_type.full_name)

    def _metadata(self, namespace, lease, headers):
        metadata = list(headers or [])
        namespace = self.namespace if namespace is None else namespace
        if namespace is not False:
            metadata.append(("containerd-namespace", namespace))
        if lease:
            metadata.append(("containerd-lease", lease))
        return metadata

    @staticmethod
    def _request(kind, request):
        if request is None:
            return kind()
        return json_format.ParseDict(request, kind()) if isinstance(request, dict) else request

    def call(self, path, request=None, namespace=None, lease=None, timeout=20, headers=None):
        """One request, one reply. namespace=False sends none. Raises grpc.RpcError."""
        _, kind, reply = self._method(path)
        stub = self.channel.unary_unary("/" + path, kind.SerializeToString, reply.FromString)
        return stub(self._request(kind, request), timeout=timeout, metadata=self._metadata(namespace, lease, headers))

    def begin(self, path, request=None, namespace=None, timeout=20):
        """A future of the reply. Those of one connection arrive in this order."""
        _, kind, reply = self._method(path)
        stub = self.channel.unary_unary("/" + path, kind.SerializeToString, reply.FromString)
        return stub.future(self._request(kind, request), timeout=timeout, metadata=self._metadata(namespace, None, None))

    def stream(self, path, request=None, namespace=None, lease=None, timeout=20, headers=None):
        """One request, an iterator of replies (with .cancel())."""
        _, kind, reply = self._method(path)
        stub = self.channel.unary_stream("/" + path, kind.SerializeToString, reply.FromString)
        return stub(self._request(kind, request), timeout=timeout, metadata=self._metadata(namespace, lease, headers))

    def bidi(self, path, requests, namespace=None, lease=None, timeout=20, headers=None):
        """An iterator of requests (dicts or messages), an iterator of replies."""
        _, kind, reply = self._method(path)
        stub = self.channel.stream_stream("/" + path, kind.SerializeToString, reply.FromString)
        return stub((self._request(kind, r) for r in requests), timeout=timeout,
                    metadata=self._metadata(namespace, lease, headers))
