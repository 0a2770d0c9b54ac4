#!/bin/bash
# Boots systemd as PID 1 on a copy-on-write view of this machine, in namespaces that `unshare` has made. Nothing
# of it reaches the machine: all writes go to a tmpfs that ends with the namespace.
# Usage: unshare --pid --mount --mount-proc --fork --uts --ipc --cgroup --net bash boot.sh EMPTY-FOLDER DEB [DEBS]
# DEB: a package that is to be seen there as /pinwatch.deb.
# DEBS: a folder with the packages of another systemd, which is booted instead of the machine's.
set -eu
root=$1
package=$2
debs=${3:-}
mount --make-rprivate /
mount -t tmpfs -o mode=0755 tmpfs "$root"
mkdir "$root/upper" "$root/work" "$root/new"
mount -t overlay overlay -o "lowerdir=/,upperdir=$root/upper,workdir=$root/work" "$root/new"
cd "$root/new"
if [ -n "$debs" ]; then
  for deb in "$debs"/*.deb; do
    # Debian's /lib is a link to /usr/lib, and stays one.
    dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink
  done
fi
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
# systemd cleans /tmp at boot, and /run is its own.
mount -t tmpfs -o mode=0755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=1777 tmpfs var/tmp
mount -t tmpfs -o mode=0755 tmpfs dev
for node in null zero full random urandom tty; do
  touch "dev/$node"
  mount --bind "/dev/$node" "dev/$node"
done
mkdir dev/shm dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
# Wherever the package is: of this machine's /tmp and of its other file systems nothing is to be seen in there.
touch pinwatch.deb
mount --bind "$package" pinwatch.deb
# What this machine itself would start, and what an earlier installation may have left.
rm -rf usr/sbin/policy-rc.d etc/systemd/system etc/pinwatch var/lib/pinwatch var/log/pinwatch var/log/journal
mkdir -p etc/systemd/system run/systemd
# An index of all manual pages is not made anew at each dpkg -i: it takes four fifths of its time.
rm -f var/lib/man-db/auto-update
echo systemd-test > etc/hostname
hostname systemd-test
# Not chroot: in one, no user namespace can be made, which PrivateUsers= of other units needs.
pivot_root . mnt
umount -l /mnt
# Among the namespaces of this systemd alone, as it would do itself outside a container: credentials need it.
mount --make-rshared /
exec /usr/bin/env -i container=docker PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --unit=basic.target --log-target=null
