//! The package under a real systemd as PID 1: installed by dpkg, started by its socket, killed, stalled, reloaded.
//!
//! Each test boots a systemd of its own in namespaces of its own, on a copy-on-write view of the machine
//! (`tests/systemd/boot.sh`): nothing reaches the machine itself. Needs root, and cargo-deb for the package;
//! without them the tests skip and say so, and fail where CI=true.

#[path = "systemd/container.rs"]
mod container;
#[path = "support/not_run.rs"]
mod not_run;

use std::process::Command;

use container::{Container, container, deb, newer_container};
use not_run::not_run;

/// Submits a PIN that is delivered, and waits for its outcome.
fn deliver(container: &Container, pin: &str) {
    container.run(&format!("pinwatch submit {pin} --wait --timeout 60s"));
}

/// Waits for this text in a file of a sink.
fn written(container: &Container, what: &str, file: &str) {
    container.until(&format!("cat {file}"), |text| text.contains(what));
}

fn main_pid(container: &Container) -> String {
    container.run("systemctl show -p MainPID --value pinwatch.service")
}

#[test]
fn the_first_submit_starts_the_service_through_its_socket() {
    let Some(container) = container() else { return };
    container.install_with_key();
    container.run("systemctl stop pinwatch.service");
    container.fails("systemctl is-active pinwatch.service");
    deliver(&container, "sim-delivered-1");
    // Type=notify: active is what READY=1 made it.
    container.run("systemctl is-active pinwatch.service");
    written(&container, "\"pinId\":\"sim-delivered-1\"", "/var/log/pinwatch/outcomes.jsonl");
    let entry = container
        .until("journalctl -u pinwatch PIN_ID=sim-delivered-1 OUTCOME=final -o cat", |text| {
            text.contains("a PIN has its outcome")
        });
    assert!(entry.contains("pin_id=sim-delivered-1"), "{entry}");
    container
        .until("systemctl show -p StatusText --value pinwatch.service", |text| text.contains("in flight"));
    // The key came by LoadCredential, from a file that the daemon can't read, and is nowhere to be seen.
    container.fails("setpriv --reuid pinwatch --regid pinwatch --clear-groups cat /etc/pinwatch/api-key");
    container.fails("journalctl -u pinwatch -o verbose | grep demo-key");
    container.fails("systemctl show pinwatch.service | grep demo-key");
}

#[test]
fn an_installation_without_a_key_starts_nothing_and_says_what_to_do() {
    let Some(container) = container() else { return };
    let said = container.run("dpkg -i $DEB 2>&1");
    assert!(said.contains("write the API key into /etc/pinwatch/api-key"), "{said}");
    container.run("systemctl is-enabled pinwatch.socket pinwatch.service");
    container.fails("systemctl is-active pinwatch.socket");
    container.fails("systemctl start pinwatch.service");
    container
        .until("journalctl -u pinwatch -o cat", |text| text.contains("it is empty. Is the key in the file"));
    // A mistake in the configuration is not tried again and again.
    container.run("systemctl is-failed pinwatch.service");
    // systemd reports no problem and a low exposure.
    let complaints =
        container.run("systemd-analyze verify pinwatch.service pinwatch.socket pinwatch-http.socket 2>&1");
    assert_eq!(complaints, "");
    container
        .run("systemd-analyze security --offline=true --threshold=12 /lib/systemd/system/pinwatch.service");
}

#[test]
fn systemd_can_pass_a_socket_for_http() {
    let Some(container) = container() else { return };
    container.install_with_key();
    container.fails("systemctl is-enabled pinwatch-http.socket");
    container.run("systemctl enable pinwatch-http.socket && systemctl stop pinwatch.service");
    container.run("systemctl start pinwatch-http.socket pinwatch.service");
    let ask = "curl --silent --fail --max-time 60 http://127.0.0.1:9464/healthz";
    assert!(container.run(ask).contains("true"));
    deliver(&container, "sim-delivered-1");
    container.run(&format!("systemctl reload pinwatch.service && {ask}"));
    // Who connects while the daemon is restarted waits.
    container.run(&format!("systemctl restart --no-block pinwatch.service && {ask}"));
    container.run("systemctl stop pinwatch.service");
    assert!(container.run(ask).contains("true"), "a connection starts it");
}

#[test]
fn members_of_the_group_are_served_and_others_are_refused() {
    let Some(container) = container() else { return };
    container.install_with_key();
    container.run("useradd --no-create-home --groups pinwatch inside && useradd --no-create-home outside");
    container.run("runuser -u inside -- pinwatch submit sim-delivered-1 --wait --timeout 60s");
    container.run("runuser -u inside -- cat /var/log/pinwatch/outcomes.jsonl");
    let refusal = container.fails("runuser -u outside -- pinwatch submit sim-delivered-2");
    assert!(refusal.contains("add yourself to group pinwatch"), "{refusal}");
    container.fails("runuser -u outside -- cat /var/log/pinwatch/outcomes.jsonl");
    container.fails("runuser -u inside -- cat /var/lib/pinwatch/pinwatch.db");
    // Also by a socket that the daemon's user made, not systemd.
    container.run("systemctl stop pinwatch.socket pinwatch.service && systemctl mask pinwatch.socket");
    container.run("systemctl start pinwatch.service");
    container.run("runuser -u inside -- pinwatch submit sim-delivered-3 --wait --timeout 60s");
    container.run("pinwatch submit sim-delivered-4 --wait --timeout 60s");
}

#[test]
fn logrotate_and_reload_lose_and_duplicate_no_line() {
    let Some(container) = container() else { return };
    container.install_with_key();
    deliver(&container, "sim-delivered-1");
    let pid = main_pid(&container);
    container.run("logrotate --force /etc/logrotate.d/pinwatch");
    container.until("journalctl -u pinwatch -o cat", |text| text.contains("the files are reopened"));
    deliver(&container, "sim-delivered-2");
    assert_eq!(main_pid(&container), pid);
    container
        .until("cd /var/log/pinwatch && grep -c sim-delivered outcomes.jsonl.1 outcomes.jsonl", |lines| {
            lines == "outcomes.jsonl.1:1\noutcomes.jsonl:1"
        });
    written(&container, "sim-delivered-2", "/var/log/pinwatch/outcomes.jsonl");
    container.run("stat -c '%a %U %G' /var/log/pinwatch/outcomes.jsonl | grep -qx '640 pinwatch pinwatch'");
    // With a mistake in the configuration the file is rotated all the same.
    container.run("echo 'nonsense = 1' >> /etc/pinwatch/pinwatch.toml");
    container.run("logrotate --force /etc/logrotate.d/pinwatch");
    container.until("journalctl -u pinwatch -o cat", |text| text.contains("was not reloaded"));
    deliver(&container, "sim-delivered-3");
    written(&container, "sim-delivered-3", "/var/log/pinwatch/outcomes.jsonl");
    assert_eq!(main_pid(&container), pid);
}

#[test]
fn a_reload_fails_if_the_configuration_is_invalid_and_the_daemon_continues() {
    let Some(container) = container() else { return };
    container.install_with_key();
    container.run("systemctl start pinwatch.service");
    refuses_a_bad_reload_and_takes_a_good_one(&container);
    // Wherever the credentials come from, the check sees those that the daemon has.
    container.run("mv /etc/pinwatch/api-key /etc/elsewhere");
    container.drop_in("key", "[Service]\nLoadCredential=\nLoadCredential=api-key:/etc/elsewhere\n");
    container.run("systemctl restart pinwatch.service && systemctl reload pinwatch.service");
    // What root could read and the daemon can't is no good configuration.
    container.run("install -m 0600 /etc/elsewhere /etc/pinwatch/own-key");
    container.run("sed -i '/^\\[api\\]/a key_file = \"/etc/pinwatch/own-key\"' /etc/pinwatch/pinwatch.toml");
    container.fails("systemctl reload pinwatch.service");
    container.run("chown pinwatch /etc/pinwatch/own-key && systemctl reload pinwatch.service");
}

#[test]
fn with_systemd_254_and_the_drop_in_a_reload_returns_when_it_is_in_effect() {
    let Some(container) = newer_container() else { return };
    container.install_with_key();
    container.run(
        "cp /usr/share/doc/pinwatch/examples/notify-reload.conf /etc/systemd/system/pinwatch.service.d/ \
         && systemctl daemon-reload && systemctl restart pinwatch.service",
    );
    assert_eq!(container.run("systemctl show -p Type --value pinwatch.service"), "notify-reload");
    assert_eq!(container.run("systemd-analyze verify pinwatch.service pinwatch.socket 2>&1"), "");
    refuses_a_bad_reload_and_takes_a_good_one(&container);
    // Without a message of the daemon's the reload would have waited for TimeoutStartSec=, and so for too long.
    container.run(
        "printf '[[sink]]\\ntype = \"file\"\\nname = \"second\"\\npath = \"/var/log/pinwatch/second.jsonl\"\\n' \
         >> /etc/pinwatch/pinwatch.toml && systemctl reload pinwatch.service && test -e /var/log/pinwatch/second.jsonl",
    );
    deliver(&container, "sim-delivered-1");
    written(&container, "sim-delivered-1", "/var/log/pinwatch/second.jsonl");
}

fn refuses_a_bad_reload_and_takes_a_good_one(container: &Container) {
    let pid = main_pid(container);
    container.run("cp /etc/pinwatch/pinwatch.toml /root/ && systemctl reload pinwatch.service");
    container.run("echo 'nonsense = 1' >> /etc/pinwatch/pinwatch.toml");
    container.fails("systemctl reload pinwatch.service");
    container.until("journalctl -u pinwatch -o cat", |text| text.contains("nonsense (/etc/pinwatch"));
    container.run("systemctl is-active pinwatch.service && pinwatch ping");
    container.run("cp /root/pinwatch.toml /etc/pinwatch/ && systemctl reload pinwatch.service");
    assert_eq!(main_pid(container), pid);
}

#[test]
fn doctor_finds_what_the_systemd_sandbox_forbids_and_its_advice_helps() {
    let Some(container) = container() else { return };
    container.install_with_key();
    let doctor = "PINWATCH__API__BASE_URL=http://127.0.0.1:8085 pinwatch doctor";
    container.run(&format!("systemctl start pinwatch.service && {doctor}"));
    container.run(
        "install -d -o pinwatch -g pinwatch -m 0750 /srv/outcomes \
         && printf '[[sink]]\\ntype = \"file\"\\nname = \"other\"\\npath = \"/srv/outcomes/a.jsonl\"\\n' >> /etc/pinwatch/pinwatch.toml",
    );
    let found = container.fails(doctor);
    assert!(found.contains("ReadWritePaths=/srv/outcomes, then systemctl restart"), "{found}");
    container.fails("systemctl restart pinwatch.service");
    container.drop_in("sink", "[Service]\nReadWritePaths=/srv/outcomes\n");
    container.run(&format!("systemctl restart pinwatch.service && {doctor}"));
    deliver(&container, "sim-delivered-1");
    written(&container, "sim-delivered-1", "/srv/outcomes/a.jsonl");
    // The store too.
    let elsewhere = format!("PINWATCH__STORE__URL=sqlite:/srv/state/pinwatch.db {doctor} --json");
    let found = container.fails(&elsewhere);
    assert!(found.contains("\"check\":\"store\",\"ok\":false"), "{found}");
}

#[test]
fn the_notices_of_every_crate_that_is_linked_are_installed() {
    let Some(deb) = deb() else { return };
    let extract = "dpkg-deb --fsys-tarfile \"$0\" | tar -xO ./usr/share/doc/pinwatch/third-party.gz | gunzip";
    let notices = Command::new("sh").args(["-c", extract]).arg(deb).output().unwrap();
    let notices = String::from_utf8(notices.stdout).unwrap();
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--edges=normal", "--prefix=none", "--format={p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap();
    let mut count = 0;
    for line in tree.lines().filter(|line| !line.is_empty() && !line.starts_with("pinwatch v")) {
        // NAME vVERSION, and of some a word behind it.
        let mut words = line.split(' ');
        let (name, version) = (words.next().unwrap(), words.next().unwrap().trim_start_matches('v'));
        assert!(notices.contains(&format!("\n{name} {version} (")), "no notice of {line}");
        count += 1;
    }
    assert!(count > 100, "{tree}");
    for text in ["Permission is hereby granted, free of charge", "TERMS AND CONDITIONS FOR USE"] {
        assert!(notices.contains(text), "{text}");
    }
}

#[test]
fn lintian_finds_nothing() {
    let Some(deb) = deb() else { return };
    match Command::new("lintian").args(["--display-info", "--fail-on=error,warning,info"]).arg(deb).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
        Err(error) => not_run(&format!("lintian on the package ({error})"), "the package lintian"),
    }
}

#[test]
fn a_killed_service_restarts_and_delivers_the_accepted_pins() {
    let Some(container) = container() else { return };
    container.install_with_key();
    container.run("pinwatch submit sim-5s-1");
    let pid = main_pid(&container);
    container.run("systemctl kill --kill-whom=main --signal=KILL pinwatch.service");
    container.until("systemctl show -p NRestarts --value pinwatch.service", |text| text != "0");
    container.run("pinwatch wait sim-5s-1 --timeout 60s");
    assert_ne!(main_pid(&container), pid);
}

#[cfg(feature = "fault-points")]
#[test]
fn a_daemon_that_hangs_is_restarted_by_the_watchdog() {
    let Some(container) = container() else { return };
    container.install_with_key();
    container.drop_in("watchdog", "[Service]\nWatchdogSec=2s\nTimeoutAbortSec=2s\n");
    container.run("systemctl restart pinwatch.service");
    container.run("pinwatch submit sim-5s-1");
    container.run("systemctl kill --kill-whom=main --signal=USR1 pinwatch.service");
    container.until("systemctl show -p NRestarts --value pinwatch.service", |text| text != "0");
    container.until("journalctl -o cat _PID=1 -u pinwatch.service; journalctl -o cat -u pinwatch", |text| {
        text.contains("does not answer")
    });
    container.run("pinwatch wait sim-5s-1 --timeout 60s");
}

#[test]
fn a_stop_succeeds_within_its_limit_and_the_socket_keeps_listening() {
    let Some(container) = container() else { return };
    container.install_with_key();
    container.run("pinwatch submit sim-waiting-1 sim-stall-1");
    container.run("systemctl stop pinwatch.service");
    assert_eq!(container.run("systemctl show -p Result --value pinwatch.service"), "success");
    container.run("systemctl is-active pinwatch.socket && test -S /run/pinwatch/pinwatch.sock");
    // Both units stopped, nobody is served.
    container.run("systemctl stop pinwatch.socket pinwatch.service");
    container.fails("pinwatch ping");
}

#[test]
fn an_upgrade_under_load_loses_nothing() {
    let Some(container) = container() else { return };
    container.install_with_key();
    container.run("systemctl start pinwatch.service && echo '# mine' >> /etc/pinwatch/pinwatch.toml");
    let pid = main_pid(&container);
    // Submits one after the other, each until it was acknowledged, while the package is installed again.
    container.run(
        "cat > /tmp/load <<'END'\n\
         for n in $(seq 300); do until pinwatch submit sim-250ms-$n >/dev/null 2>&1; do :; done; echo $n > /tmp/done; done\n\
         END\n\
         systemd-run --quiet --unit=load sh /tmp/load",
    );
    container.until("cat /tmp/done", |text| text.parse::<u32>().is_ok_and(|done| done > 20));
    container.run("dpkg --force-confold -i $DEB");
    assert_ne!(main_pid(&container), pid);
    container.until("cat /tmp/done", |text| text == "300");
    container.until("grep -c sim-250ms- /var/log/pinwatch/outcomes.jsonl", |text| text == "300");
    let different =
        container.run("grep -o 'sim-250ms-[0-9]*' /var/log/pinwatch/outcomes.jsonl | sort -u | wc -l");
    assert_eq!(different, "300");
    // The administrator's change is still there.
    container.run("grep -qx '# mine' /etc/pinwatch/pinwatch.toml");
}

#[test]
fn remove_keeps_the_files_that_purge_deletes() {
    let Some(container) = container() else { return };
    container.install_with_key();
    deliver(&container, "sim-delivered-1");
    container.run("echo '# mine' >> /etc/pinwatch/pinwatch.toml");
    let user = container.run("getent passwd pinwatch");
    container.run("dpkg --remove pinwatch");
    container.fails("systemctl is-active pinwatch.service");
    container.fails("systemctl is-active pinwatch.socket");
    container.run("test -s /var/lib/pinwatch/pinwatch.db && test -s /var/log/pinwatch/outcomes.jsonl");
    container.run("test -s /etc/pinwatch/api-key && ! test -e /usr/bin/pinwatch");
    let conffiles =
        container.run("dpkg-query --showformat '${Conffiles}' --show pinwatch | cut -d' ' -f2 | sort");
    assert_eq!(conffiles, "/etc/logrotate.d/pinwatch\n/etc/pinwatch/pinwatch.toml");
    // logrotate runs on without the program.
    container.run("logrotate --force /etc/logrotate.d/pinwatch");
    // Installed again, it is started and goes on where it was.
    container.run("dpkg -i $DEB && grep -qx '# mine' /etc/pinwatch/pinwatch.toml");
    container.run("pinwatch show sim-delivered-1 --json | grep -q MESSAGE_DELIVERED");
    container.run("dpkg --purge pinwatch");
    container.fails("systemctl is-active pinwatch.service");
    assert_eq!(container.run("getent passwd pinwatch"), user);
    for gone in [
        "/var/lib/pinwatch",
        "/var/log/pinwatch",
        "/etc/pinwatch",
        "/run/pinwatch",
        "/run/pinwatch.install",
        "/etc/logrotate.d/pinwatch",
    ] {
        container.run(&format!("! test -e {gone}"));
    }
    assert_eq!(
        container.run(
            "find /etc/systemd/system /var/lib/systemd -name '*pinwatch*' -not -name pinwatch.service.d"
        ),
        ""
    );
    container.fails("dpkg-query --show --showformat '${db:Status-Status}' pinwatch | grep .");
    // A new beginning, with nothing of the old one but the user.
    let said = container.run("dpkg -i $DEB 2>&1");
    assert!(said.contains("write the API key into /etc/pinwatch/api-key"), "{said}");
    container.fails("grep -x '# mine' /etc/pinwatch/pinwatch.toml");
    // A purge of what was removed before.
    container.run("dpkg --remove pinwatch && dpkg --purge pinwatch && ! test -e /etc/pinwatch");
    assert_eq!(container.run("getent passwd pinwatch"), user);
}

#[test]
fn stopped_disabled_and_masked_units_stay_so_over_an_upgrade() {
    let Some(container) = container() else { return };
    container.install_with_key();
    container.run("systemctl stop pinwatch.socket pinwatch.service && dpkg -i $DEB");
    container.fails("systemctl is-active pinwatch.service");
    container.fails("systemctl is-active pinwatch.socket");
    container.run("systemctl disable pinwatch.socket pinwatch.service && dpkg -i $DEB");
    container.fails("systemctl is-enabled pinwatch.service");
    container.run("dpkg --remove pinwatch && dpkg -i $DEB");
    container.fails("systemctl is-enabled pinwatch.socket");
    // Without the socket unit the daemon has a socket of its own.
    container.run("systemctl stop pinwatch.socket pinwatch.service && systemctl mask pinwatch.socket");
    container.run("systemctl start pinwatch.service && dpkg -i $DEB");
    assert_eq!(container.run("systemctl show -p LoadState --value pinwatch.socket"), "masked");
    container.run("systemctl is-active pinwatch.service && pinwatch ping");
}

#[test]
fn the_package_can_be_installed_and_purged_without_systemd() {
    let Some(container) = container() else { return };
    // As in a folder that becomes an image.
    container.run(
        "unshare --mount sh -ec 'mount -t tmpfs tmpfs /run; dpkg -i $DEB; pinwatch --version; dpkg --purge pinwatch'",
    );
    container.run("! test -e /etc/pinwatch && getent passwd pinwatch");
    // Nor is anything started where a policy forbids it.
    container.run("mkdir -p /etc/pinwatch && echo demo-key > /etc/pinwatch/api-key");
    container
        .run("printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d");
    container.run("dpkg -i $DEB && systemctl is-enabled pinwatch.service");
    container.fails("systemctl is-active pinwatch.socket");
}
