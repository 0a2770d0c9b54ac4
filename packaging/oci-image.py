#!/usr/bin/env python3
"""Writes a container image as an OCI archive, without a container engine: the program, the C library that it needs, and
certificates. No shell, no package manager, no user but 65532. The same inputs and SOURCE_DATE_EPOCH give the same bytes.

Usage: packaging/oci-image.py PROGRAM VERSION COMMIT ARCHIVE
"""

import datetime
import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile

USER = 65532
EPOCH = int(os.environ["SOURCE_DATE_EPOCH"])
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"

# The image always has a configuration, so that nobody's defaults depend on the user's folders. A mounted one replaces it.
CONFIGURATION = b"# Mount your own file here, or set PINWATCH__SECTION__KEY in the environment.\n"
USERS = f"root:x:0:0:root:/:/sbin/nologin\npinwatch:x:{USER}:{USER}:pinwatch:/var/lib/pinwatch:/sbin/nologin\n"
GROUPS = f"root:x:0:\npinwatch:x:{USER}:\n"


def add(layer, path, content=None, mode=0o644, owner=0, link=None):
    """Adds a file, a folder (without content) or a symbolic link."""
    entry = tarfile.TarInfo(path.lstrip("/"))
    entry.mtime, entry.uid, entry.gid, entry.mode = EPOCH, owner, owner, mode
    if link:
        entry.type, entry.linkname = tarfile.SYMTYPE, link
    elif content is None:
        entry.type = tarfile.DIRTYPE
    else:
        entry.size = len(content)
    layer.addfile(entry, io.BytesIO(content) if content else None)


def libraries(program):
    """The files of the C library that the program is linked with, and the loader, each at the path where it is looked for."""
    found = subprocess.check_output(["ldd", program], text=True)
    paths = sorted(set(re.findall(r"(?:=> )?(/\S+) \(0x", found)))
    if not any("/ld-linux" in path for path in paths):
        sys.exit(f"oci-image.py: {program} is linked in a way that is not known here:\n{found}")
    # glibc loads these two by name when names are looked up, on versions before 2.34.
    folder = pathlib.Path(next(path for path in paths if "libc.so" in path)).parent
    extra = [str(folder / name) for name in ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2")]
    return paths + [path for path in extra if pathlib.Path(path).exists() and path not in paths]


def layer(program):
    """The one layer, as an uncompressed tar archive."""
    read = lambda path: pathlib.Path(path).read_bytes()
    made = io.BytesIO()
    files = {path: (read(path), 0o755) for path in libraries(program)}
    files["/usr/bin/pinwatch"] = (read(program), 0o755)
    files[CERTIFICATES] = (read(CERTIFICATES), 0o644)
    files["/etc/pinwatch/pinwatch.toml"] = (CONFIGURATION, 0o644)
    files["/etc/passwd"], files["/etc/group"] = (USERS.encode(), 0o644), (GROUPS.encode(), 0o644)
    files["/etc/nsswitch.conf"] = (b"hosts: files dns\n", 0o644)
    files["/usr/share/doc/pinwatch/LICENSE"] = (read("LICENSE"), 0o644)
    files["/usr/share/doc/pinwatch/third-party.gz"] = (read("target/packaging/third-party.gz"), 0o644)
    copyright = pathlib.Path("/usr/share/doc/libc6/copyright")
    if copyright.exists():
        files["/usr/share/doc/libc6/copyright"] = (copyright.read_bytes(), 0o644)
    parents = {str(parent) for path in files for parent in pathlib.PurePath(path).parents} - {"/"}
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(parents | {"/run", "/tmp", "/var", "/var/lib"}):
            add(archive, path, mode=0o1777 if path == "/tmp" else 0o755)
        add(archive, "/var/lib/pinwatch", mode=0o700, owner=USER)
        # The socket is in the volume too: with a read-only root file system, nothing else can be written.
        add(archive, "/run/pinwatch", link="/var/lib/pinwatch", mode=0o777)
        for path, (content, mode) in sorted(files.items()):
            add(archive, path, content, mode)
    return made.getvalue()


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def compact(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def main():
    program, version, commit, archive = sys.argv[1:]
    created = datetime.datetime.fromtimestamp(EPOCH, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    unpacked = layer(program)
    packed = gzip.compress(unpacked, 9, mtime=0)
    labels = {
        "org.opencontainers.image.title": "pinwatch",
        "org.opencontainers.image.description": "Waits for the final status of one-time PINs, and delivers each outcome",
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.revision": commit,
        "org.opencontainers.image.created": created,
        "org.opencontainers.image.licenses": "MIT",
    }
    second = 1_000_000_000
    image = {
        "created": created,
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "User": f"{USER}:{USER}",
            "Env": ["PATH=/usr/bin", f"SSL_CERT_FILE={CERTIFICATES}"],
            "Entrypoint": ["/usr/bin/pinwatch"],
            "Cmd": ["run"],
            "WorkingDir": "/var/lib/pinwatch",
            "Volumes": {"/var/lib/pinwatch": {}},
            "StopSignal": "SIGTERM",
            "Labels": labels,
            # Docker's extension of the format; engines that don't know it ignore it.
            "Healthcheck": {
                "Test": ["CMD", "/usr/bin/pinwatch", "ping"],
                "Interval": 30 * second,
                "Timeout": 5 * second,
                "StartPeriod": 60 * second,
                "Retries": 3,
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [digest(unpacked)]},
        "history": [{"created": created, "created_by": "packaging/oci-image.py"}],
    }
    blobs = {}

    def blob(content, kind):
        blobs[digest(content)] = content
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest(content), "size": len(content)}

    layers = [blob(packed, "layer.v1.tar+gzip")]
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(compact(image), "config.v1+json"),
        "layers": layers,
        "annotations": labels,
    }
    reference = blob(compact(manifest), "manifest.v1+json")
    reference["platform"] = {"architecture": "amd64", "os": "linux"}
    # podman and containerd take the image's name from the second.
    reference["annotations"] = {
        "org.opencontainers.image.ref.name": version,
        "io.containerd.image.name": f"docker.io/library/pinwatch:{version}",
    }
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [reference]}
    with tarfile.open(archive, mode="w", format=tarfile.GNU_FORMAT) as out:
        add(out, "blobs", mode=0o755)
        add(out, "blobs/sha256", mode=0o755)
        for name, content in sorted(blobs.items()):
            add(out, "blobs/" + name.replace(":", "/"), content)
        add(out, "index.json", compact(index))
        add(out, "oci-layout", compact({"imageLayoutVersion": "1.0.0"}))


main()
