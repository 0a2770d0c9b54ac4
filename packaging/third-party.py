#!/usr/bin/env python3
"""Writes the notices of all crates that are linked into pinwatch: name, version, licence, and the texts that the crate
itself brings. The same text is written once, below all crates that bring it. Fails for a crate without any licence.

Usage: packaging/third-party.py > FILE
"""

import json
import pathlib
import re
import subprocess
import sys

TEXTS = re.compile(r"(LICEN[CS]E|COPYING|COPYRIGHT|NOTICE|UNLICENSE)", re.IGNORECASE)

target = next(
    line.split()[1]
    for line in subprocess.check_output(["rustc", "-vV"], text=True).splitlines()
    if line.startswith("host: ")
)
metadata = json.loads(
    subprocess.check_output(["cargo", "metadata", "--locked", "--format-version=1", "--filter-platform", target])
)
packages = {package["id"]: package for package in metadata["packages"]}
nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}

root = metadata["resolve"]["root"]
linked, waiting = set(), [root]
while waiting:
    for dependency in nodes[waiting.pop()]["deps"]:
        is_normal = any(kind["kind"] is None for kind in dependency["dep_kinds"])
        if is_normal and dependency["pkg"] not in linked:
            linked.add(dependency["pkg"])
            waiting.append(dependency["pkg"])

crates_of_text = {}
for package in sorted((packages[package] for package in linked), key=lambda package: (package["name"], package["version"])):
    licence = package["license"] or package["license_file"]
    if not licence:
        sys.exit(f"third-party.py: {package['name']} {package['version']} has no licence")
    title = f"{package['name']} {package['version']} ({licence})"
    if package["authors"]:
        title += ", by " + ", ".join(re.sub(r" *<.*?>", "", author) for author in package["authors"])
    folder = pathlib.Path(package["manifest_path"]).parent
    files = sorted(file for file in folder.iterdir() if file.is_file() and TEXTS.match(file.name))
    texts = [file.read_text(errors="replace").strip() for file in files if file.suffix not in (".rs", ".html")]
    for text in texts or [f"(It brings no text: see {package['repository'] or package['homepage']}.)"]:
        crates_of_text.setdefault(text, []).append(title)

print("pinwatch contains these crates, each under the licence that is named with it.\n")
for text, crates in crates_of_text.items():
    print("=" * 80, *crates, "-" * 80, text, "", sep="\n")
