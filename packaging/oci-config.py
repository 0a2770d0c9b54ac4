#!/usr/bin/env python3
"""Writes the config.json by which crun runs the unpacked image, as an engine would with `--read-only --cap-drop=ALL
--security-opt=no-new-privileges -v VOLUME:/var/lib/pinwatch`. For packaging/check-release.sh.

Usage: packaging/oci-config.py BUNDLE VOLUME ARGUMENTS…
"""

import json
import pathlib
import sys

bundle, volume, *arguments = sys.argv[1:]
path = pathlib.Path(bundle) / "config.json"
config = json.loads(path.read_text())
process = config["process"]
process["terminal"] = False
process["args"] = ["/usr/bin/pinwatch", *arguments]
process["env"] = [entry for entry in process["env"] if not entry.startswith("PINWATCH")]
process["env"] += ["PINWATCH__API__KEY=demo-key", "PINWATCH__API__BASE_URL=http://127.0.0.1:9"]
process["capabilities"] = {}
process["noNewPrivileges"] = True
assert process["user"]["uid"] == 65532, process["user"]
config["root"]["readonly"] = True
config["mounts"] = [
    mount for mount in config["mounts"] if mount["destination"] in ("/proc", "/dev", "/dev/pts", "/dev/shm", "/sys")
]
config["mounts"].append(
    {"destination": "/var/lib/pinwatch", "type": "bind", "source": volume, "options": ["bind", "rw"]}
)
# This machine's limits are not an engine's.
config.get("linux", {}).pop("resources", None)
path.write_text(json.dumps(config))
