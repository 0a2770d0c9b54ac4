//! `pinwatch doctor`: finds the common mistakes of new users and says what to do.
//!
//! Promises to change nothing: it sends one GET to the API, for a PIN that does not exist or for the one of `--pin`, asks the
//! daemon for `ping` and `stats`, and examines folders. Makes every check, whatever the others found. With `--send-test` it makes
//! only a test delivery ([`send_test`]). Prints no secret.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustix::fs::{Access, access};
use rustix::process::geteuid;

use super::cli::DoctorArgs;
use super::client::{self, Client};
use super::config;
use super::error::{CommandError, error_lines};
use super::exit::Exit;
use super::finding::{self, Finding};
use super::globals::Globals;
use super::human;
use super::output::Output;
use super::sandbox::Sandbox;
use super::send_test;
use crate::config::{Api, Explained, Http, SYSTEM_FILE, Setting, Sink, SinkKind, StoreUrl};
use crate::http::{self, tokens::Tokens};
use crate::pin::PinId;
use crate::poll::{self, Field, Look, Meaning};
use crate::protocol::stats::{self, Stats};
use crate::sinks::FileSink;

/// A PIN that no account has.
const NOBODYS: &str = "pinwatch-doctor";

/// The largest accepted error of the clock: receivers refuse webhooks whose timestamp is too far from their own time.
const CLOCK_OFF: SignedDuration = SignedDuration::from_secs(60);

/// Exit statuses: 0 no problem, 1 a problem was found, 2 the configuration is wrong.
pub async fn run(globals: &Globals, args: &DoctorArgs, mut output: Output) -> Result<Exit, CommandError> {
    let explained = config::explain_beside_daemon(globals)?;
    let file = explained.file.as_ref().map_or("no file".to_owned(), |file| file.display().to_string());
    let mut findings = vec![Finding::well("configuration", format!("is good ({file})"))];
    let warnings = explained.warnings.iter();
    findings.extend(warnings.map(|warning| Finding::warning("secrets", warning.to_string())));
    if let Some(sink) = args.send_test.as_deref() {
        findings.push(send_test::send(&explained.config.sinks, sink).await?);
        return finding::print(&findings, &mut output);
    }
    findings.extend(api(&explained.config.api, args.pin.as_ref()).await);
    findings.extend(certificate(&explained.config.http));
    let socket = config::client_socket(globals, None)?;
    let (finding, stats) = daemon(&socket, &explained.settings).await;
    findings.push(finding);
    for sink in &explained.config.sinks {
        findings.push(look_at(sink, stats.as_ref()));
    }
    findings.extend(explained.config.http.tokens_file.as_deref().map(tokens));
    findings.extend(in_sandbox(&explained));
    finding::print(&findings, &mut output)
}

/// Makes one real call; checks the host, the key, the clock (by the answer's Date header), and how the answer is read.
async fn api(api: &Api, pin: Option<&PinId>) -> Vec<Finding> {
    let host = api.base_url.host_str().unwrap_or("the API").to_owned();
    let asked = pin.cloned().map_or_else(|| NOBODYS.parse::<PinId>(), Ok);
    let looked = match (poll::Client::new(api), asked) {
        (Ok(client), Ok(pin)) => client.look(&pin).await,
        (Err(error), _) => Err(error.to_string()),
        (_, Err(error)) => Err(error.to_string()),
    };
    let look = match looked {
        Ok(look) => look,
        Err(failure) => {
            let what = format!(
                "{host} can't be reached ({failure}): check api.base_url, the name server, the firewall and the proxy"
            );
            return vec![Finding::ill("api", what)];
        }
    };
    let Look { status, date, .. } = look;
    let key = match status {
        401 | 403 => Finding::ill(
            "api",
            format!(
                "{host} refuses the credentials ({status}): check the key and that it is of the account that api.base_url belongs to"
            ),
        ),
        429 => Finding::ill("api", format!("{host} says 429: the account polls too much; set api.rate")),
        500.. => Finding::ill(
            "api",
            format!("{host} answers {status}: the server or a proxy has a problem; try later"),
        ),
        _ => Finding::well("api", format!("{host} answers, and accepts the key")),
    };
    let clock = date.map(|date| {
        let off = Timestamp::now().duration_since(date);
        if off.abs() > CLOCK_OFF {
            let what = format!(
                "differs by {} from that of {host}: start a time service (timedatectl set-ntp true)",
                human::short(Duration::try_from(off.abs()).unwrap_or_default())
            );
            Finding::ill("clock", what)
        } else {
            Finding::well("clock", format!("agrees with that of {host}"))
        }
    });
    let is_read = pin.is_some() || api.answer.is_some();
    let answer = if is_read { answer(&look, pin) } else { Vec::new() };
    [Some(key), clock].into_iter().flatten().chain(answer).collect()
}

/// Reports how each field of the answer was read. Of a PIN that does not exist, nothing needs to be readable.
fn answer(look: &Look, pin: Option<&PinId>) -> Vec<Finding> {
    let ill = |what: String| match pin {
        Some(_) => Finding::ill("answer", what),
        None => Finding::warning("answer", what),
    };
    let of_field = |field: &Field| match field.is_well {
        true => Finding::well("answer", &*field.what),
        false => ill(field.what.clone()),
    };
    let mut findings: Vec<Finding> = look.fields.iter().map(of_field).collect();
    match &look.meaning {
        Meaning::NotFound => findings.push(ill("404: the API does not know the PIN".to_owned())),
        Meaning::Rejected(what) => findings.push(ill(what.clone())),
        Meaning::Unreadable(what) => findings.push(ill(format!(
            "can't be read: {what}. If the API has changed, set the keys of [api.answer] (docs/presets.md)"
        ))),
        Meaning::Deliveries(deliveries) if deliveries.is_empty() => {
            findings.push(Finding::well("answer", "has no delivery yet"));
        }
        // The other findings say this already.
        Meaning::Deliveries(_)
        | Meaning::Unauthorized(_)
        | Meaning::Throttled(_)
        | Meaning::Unavailable(_)
        | Meaning::NotSent(_) => {}
    }
    if pin.is_none() {
        let what = "no account has the PIN that was asked for; \"pinwatch doctor --pin ID\", with an ID of yours, shows how its \
                    answer is read";
        findings.push(Finding::warning("answer", what));
    }
    findings
}

/// Whether the TLS files of `[http]` can be used, and for how long.
fn certificate(http: &Http) -> Option<Finding> {
    let files = http.tls.as_ref()?;
    let loaded = http::load_certificates(files);
    // Root can read what the daemon can't.
    let all = [Some(&files.cert), Some(&files.key), files.client_ca.as_ref()];
    let closed = all.into_iter().flatten().find(|path| {
        let metadata = fs::metadata(path).ok().zip(daemon_user());
        metadata.is_some_and(|(metadata, daemon)| !has_right(&metadata, daemon, 0o4))
    });
    if let (Ok(_), Some(path)) = (&loaded, closed) {
        let path = path.display();
        return Some(Finding::ill(
            "http",
            format!("the daemon can't read {path}: chgrp pinwatch {path}; chmod g+r {path}"),
        ));
    }
    Some(match loaded.map(|loaded| loaded.warning(Timestamp::now())) {
        Ok(None) => Finding::well("http", "has a certificate that is valid, and its key"),
        Ok(Some(warning)) => Finding::warning("http", warning),
        Err(error) => Finding::ill("http", error.to_string()),
    })
}

/// Asks the daemon for its statistics, and checks what they show.
async fn daemon(socket: &Path, settings: &[Setting]) -> (Finding, Option<Stats>) {
    let asked = async {
        let mut client = Client::connect(socket).await?;
        let answer = client.ask(&stats::Request {}).await?;
        Ok::<_, CommandError>(client::read(&answer.stats)?)
    };
    match asked.await {
        Ok(stats) => match stats.brake.as_ref().map(|brake| &*brake.reason) {
            Some("unauthorized") => {
                let what = if reload_takes_key(settings) {
                    "systemctl reload pinwatch"
                } else {
                    "systemctl restart pinwatch, because a reload does not read it again"
                };
                let what =
                    format!("has a key that the API refuses; if you have changed the key since: {what}");
                (Finding::ill("daemon", what), Some(stats))
            }
            _ => (Finding::well("daemon", format!("answers at {}", socket.display())), Some(stats)),
        },
        Err(error) => {
            (Finding::ill("daemon", error_lines(&error).join(" ").trim_start_matches("error: ")), None)
        }
    }
}

/// Whether a reload reads the key again. Credentials from systemd and the environment are read at a start only.
fn reload_takes_key(settings: &[Setting]) -> bool {
    settings.iter().any(|setting| match setting.key.as_str() {
        "api.key_file" | "api.password_file" => true,
        "api.key" | "api.password" => setting.origin.contains(", line "),
        _ => false,
    })
}

/// Reports whether the tokens of the API can be read, and changed by nobody else.
fn tokens(file: &Path) -> Finding {
    let daemon = daemon_user().map_or(geteuid().as_raw(), |(uid, _)| uid);
    match Tokens::read_for(file, daemon) {
        Ok(tokens) if tokens.is_empty() => {
            let what = format!("{} has no token in it: \"pinwatch token new\" makes one", file.display());
            Finding::warning("tokens", what)
        }
        Ok(tokens) => {
            let count = human::count(tokens.len() as u64, "token");
            Finding::well("tokens", format!("{} has {count}", file.display()))
        }
        Err(error) => Finding::ill("tokens", error.to_string()),
    }
}

/// Reports the files that the unit's sandbox keeps the daemon from writing, if the unit runs with this configuration.
fn in_sandbox(explained: &Explained) -> Vec<Finding> {
    if explained.file.as_deref() != Some(Path::new(SYSTEM_FILE)) {
        return Vec::new();
    }
    let Some(sandbox) = Sandbox::of_unit() else { return Vec::new() };
    let config = &explained.config;
    let store = match &config.store.url {
        StoreUrl::Sqlite(path) => sandbox.refusal(path).map(|why| Finding::ill("store", why)),
        StoreUrl::Postgres { .. } => None,
    };
    let sinks = config.sinks.iter().filter_map(|sink| {
        let why = sandbox.refusal(sink.kind.file()?)?;
        Some(Finding::ill("sink", format!("{} {why}", sink.name)))
    });
    store.into_iter().chain(sinks).collect()
}

/// Reports what the daemon says about a sink; without a daemon, whether the sink's file could be written.
fn look_at(sink: &Sink, stats: Option<&Stats>) -> Finding {
    let named = |what: String| format!("{} {what}", sink.name);
    let known = stats.and_then(|stats| stats.sinks.get(&sink.name));
    let trouble = known.and_then(|sink| Some(sink.read().ok()?.trouble?.what));
    match (known, trouble, sink.kind.file()) {
        (_, Some(trouble), _) if matches!(sink.kind, SinkKind::Webhook(_)) => {
            let name = &sink.name;
            let advice =
                format!("outcomes are kept; mend the receiver, then try: pinwatch doctor --send-test {name}");
            Finding::ill("sink", named(format!("accepts no outcomes: {trouble}; {advice}")))
        }
        (_, Some(trouble), _) => Finding::ill("sink", named(format!("accepts no outcomes: {trouble}"))),
        (Some(_), None, _) => Finding::well("sink", named("accepts outcomes".to_owned())),
        (None, None, Some(path)) => match writable(path) {
            Ok(()) => Finding::well("sink", named(format!("can write {}", path.display()))),
            Err(why) => Finding::ill("sink", named(why)),
        },
        (None, None, None) => {
            Finding::well("sink", named("can be checked only while the daemon runs".to_owned()))
        }
    }
}

/// Checks that the daemon's user may append to the file or create it. If there is no such user, or the caller is not root, it
/// checks this for the caller.
fn writable(path: &Path) -> Result<(), String> {
    let daemon = daemon_user();
    let uid = daemon.map_or(geteuid().as_raw(), |(uid, _)| uid);
    FileSink::check(path, uid).map_err(|found| found.to_string())?;
    let folder = path.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
    let place = if path.exists() { path } else { &folder };
    let metadata = fs::metadata(place).map_err(|error| {
        format!(
            "can't write {}: {error}. Make the folder: install -d -o pinwatch -g pinwatch -m 0750 {}",
            path.display(),
            folder.display()
        )
    })?;
    let allowed = match daemon {
        Some(daemon) => has_right(&metadata, daemon, 0o2),
        None => access(place, Access::WRITE_OK).is_ok(),
    };
    if allowed {
        return Ok(());
    }
    Err(format!("can't write {}: chown pinwatch:pinwatch {}", path.display(), place.display()))
}

/// Whether the mode of a file gives this user and group a right: 4 to read, 2 to write.
fn has_right(metadata: &fs::Metadata, (uid, gid): (u32, u32), right: u32) -> bool {
    let shift = if metadata.uid() == uid {
        6
    } else if metadata.gid() == gid {
        3
    } else {
        0
    };
    (metadata.mode() >> shift) & right != 0
}

/// The user and group that the daemon runs as, if the caller is root.
pub fn daemon_user() -> Option<(u32, u32)> {
    user("pinwatch").filter(|_| geteuid().is_root())
}

/// The IDs of a user and its group, if /etc/passwd lists the user.
fn user(name: &str) -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let mut fields = users.lines().find(|line| line.split(':').next() == Some(name))?.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{Config, Environment, Sources};

    #[test]
    fn doctor_advises_a_restart_only_if_a_reload_would_not_read_the_new_key() {
        let folder = tempfile::tempdir().unwrap();
        let (file, key) = (folder.path().join("pinwatch.toml"), folder.path().join("api-key"));
        fs::write(&key, "k").unwrap();
        let from_file = format!("api.key_file = \"{}\"", key.display());
        let of_start = ("CREDENTIALS_DIRECTORY", folder.path().as_os_str());
        let variable = ("PINWATCH__API__KEY", "k".as_ref());
        for (text, (name, value), reloads) in [
            (from_file.as_str(), of_start, true),
            ("api.key = \"k\"", of_start, true),
            ("api = {username = \"u\", password = \"p\"}", of_start, true),
            ("", of_start, false),
            ("", variable, false),
        ] {
            fs::write(&file, text).unwrap();
            let variables = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            let environment = Environment { variables, ..Environment::default() };
            let sources = Sources { file: Some(file.clone()), environment, set: Vec::new() };
            let settings = Config::explain(&sources).unwrap().settings;
            assert_eq!(reload_takes_key(&settings), reloads, "{text} {name}");
        }
    }
}
