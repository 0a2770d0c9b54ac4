#!/bin/sh
# Fetches systemd 254 from Debian's bookworm-backports into a folder, once: Debian 12's own knows no notify-reload.
# Neither the machine's packages nor its sources are touched.
# Usage: newer.sh FOLDER
set -eu
folder=$1
mkdir -p "$folder"
cd "$folder"
[ ! -e complete ] || exit 0
mkdir -p apt/lists/partial apt/cache/archives/partial apt/parts
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm-backports main" > apt/sources.list
cat > apt/apt.conf <<END
Dir::Etc::SourceList "$folder/apt/sources.list";
Dir::Etc::SourceParts "$folder/apt/parts";
Dir::State::Lists "$folder/apt/lists";
Dir::Cache "$folder/apt/cache";
APT::Sandbox::User "root";
END
export APT_CONFIG="$folder/apt/apt.conf"
apt-get -qq update
rm -f ./*.deb
apt-get -qq download systemd/bookworm-backports libsystemd-shared/bookworm-backports libsystemd0/bookworm-backports
touch complete
