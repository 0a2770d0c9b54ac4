//! What systemd lets the daemon write: the limits of `pinwatch.service`, which no file's mode shows and root does not
//! feel.
//!
//! Asks `systemctl show`, which may take a few seconds. Promises silence where it can't know: without systemd, without the
//! unit or without an answer there are no [`Limits`]. Must not know what is written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::{sleep, timeout};

const UNIT: &str = "pinwatch.service";

/// What is asked for; the answers come as lines `Name=value`.
const PROPERTIES: &str = "LoadState,ProtectSystem,ProtectHome,PrivateTmp,ReadWritePaths,ReadOnlyPaths,InaccessiblePaths,\
                          BindPaths,StateDirectory,CacheDirectory,LogsDirectory,RuntimeDirectory";

/// systemd answers in milliseconds, if at all.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What the unit allows, as systemd has it loaded.
#[derive(Debug)]
pub struct Limits {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    /// For this, and all below it that has no longer rule.
    path: PathBuf,
    access: Access,
    /// The setting that says so, as the unit would have it.
    setting: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Writable,
    ReadOnly,
    /// Whatever a longer rule says.
    Hidden,
    /// The daemon has one of its own there.
    Private,
}

impl Limits {
    /// Those of the packaged unit; `None` where nothing is known of it.
    pub async fn of_unit() -> Option<Self> {
        // sd_booted(3)
        if !Path::new("/run/systemd/system").is_dir() {
            return None;
        }
        let mut command = Command::new("systemctl");
        command.args(["show", UNIT, "--property", PROPERTIES]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        Self::read(&answer(child).await?)
    }

    /// Why the daemon could not write this file, and what to do; `None` if the unit lets it.
    pub fn refusal(&self, file: &Path) -> Option<String> {
        let folder = file.parent()?;
        let real = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        let real = real.join(file.file_name()?);
        let of = |rule: &&Rule| real.starts_with(&rule.path);
        let hidden = self.rules.iter().filter(of).find(|rule| rule.access == Access::Hidden);
        // The last of those that are equally long: what opens a path again stands behind what closes it.
        let longest = self.rules.iter().filter(of).max_by_key(|rule| rule.path.as_os_str().len());
        let Rule { access, setting, .. } = hidden.or(longest)?;
        let (file, folder) = (file.display(), folder.display());
        match access {
            Access::Writable => None,
            Access::ReadOnly => Some(format!(
                "can't write {file} as {UNIT} is: {setting} forbids it. systemctl edit pinwatch, write there [Service] and \
                 below it ReadWritePaths={folder}, then systemctl restart pinwatch"
            )),
            Access::Hidden => Some(format!(
                "can't write {file} as {UNIT} is: {setting} hides the folder from it. Choose another, such as one below /srv"
            )),
            Access::Private => Some(format!(
                "would write {file} where nobody finds it: by {setting} {UNIT} has a folder of its own in that place. Choose \
                 another, such as one below /srv"
            )),
        }
    }

    /// Reads what `systemctl show` printed; `None` if it does not know the unit.
    fn read(properties: &str) -> Option<Self> {
        let value = |name: &str| {
            let line = properties.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_default()
        };
        if value("LoadState") != "loaded" {
            return None;
        }
        let mut rules = Vec::new();
        let mut add = |access, name: &str, paths: &[&str]| {
            let setting = format!("{name}={}", value(name));
            rules.extend(paths.iter().map(|path| Rule {
                path: real(path),
                access,
                setting: setting.clone(),
            }));
        };
        let (system, home) = (value("ProtectSystem"), value("ProtectHome"));
        add(
            Access::ReadOnly,
            "ProtectSystem",
            match system {
                "strict" => &["/"],
                "full" => &["/usr", "/boot", "/efi", "/etc"],
                "yes" => &["/usr", "/boot", "/efi"],
                _ => &[],
            },
        );
        let homes: &[&str] = &["/home", "/root", "/run/user"];
        match home {
            "yes" => add(Access::Hidden, "ProtectHome", homes),
            "read-only" => add(Access::ReadOnly, "ProtectHome", homes),
            "tmpfs" => add(Access::Private, "ProtectHome", homes),
            _ => {}
        }
        if !matches!(value("PrivateTmp"), "" | "no") {
            add(Access::Private, "PrivateTmp", &["/tmp", "/var/tmp"]);
        }
        for (access, name) in [
            (Access::ReadOnly, "ReadOnlyPaths"),
            (Access::Hidden, "InaccessiblePaths"),
            (Access::Writable, "ReadWritePaths"),
        ] {
            // "-": may be missing; "+": from the unit's own root.
            let paths: Vec<_> =
                value(name).split_whitespace().map(|path| path.trim_start_matches(['-', '+'])).collect();
            add(access, name, &paths);
        }
        // SOURCE:PLACE:OPTIONS
        let bound: Vec<_> =
            value("BindPaths").split_whitespace().filter_map(|bind| bind.split(':').nth(1)).collect();
        add(Access::Writable, "BindPaths", &bound);
        for (name, root) in [
            ("StateDirectory", "/var/lib"),
            ("CacheDirectory", "/var/cache"),
            ("LogsDirectory", "/var/log"),
            ("RuntimeDirectory", "/run"),
        ] {
            let folders: Vec<_> = value(name)
                .split_whitespace()
                // NAME:LINK
                .map(|folder| format!("{root}/{}", folder.split(':').next().unwrap_or_default()))
                .collect();
            add(Access::Writable, name, &folders.iter().map(String::as_str).collect::<Vec<_>>());
        }
        Some(Self { rules })
    }
}

/// The folder itself, where the path leads over links: systemd follows them too.
fn real(path: &str) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.into())
}

/// What the process prints, if it ends well and in time. A few hundred bytes: no pipe is too small for them.
async fn answer(mut child: Child) -> Option<String> {
    let ended = async {
        loop {
            match child.try_wait() {
                Ok(None) => sleep(LOOK_AGAIN).await,
                Ok(Some(status)) => break status.success(),
                Err(_) => break false,
            }
        }
    };
    let ended = timeout(PATIENCE, ended).await;
    if ended.is_err() {
        // It may have ended just now.
        let _ = child.kill();
    }
    let printed = child.wait_with_output().ok()?;
    ended.is_ok_and(|well| well).then(|| String::from_utf8_lossy(&printed.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As systemd 252 prints the packaged unit, with two drop-ins.
    const SHOWN: &str = "\
ProtectHome=yes
PrivateTmp=yes
ProtectSystem=strict
ReadWritePaths=/nowhere/out -/nowhere/other
ReadOnlyPaths=/nowhere/out/but
InaccessiblePaths=
BindPaths=
StateDirectory=pinwatch
CacheDirectory=
LogsDirectory=pinwatch:link
RuntimeDirectory=pinwatch
LoadState=loaded
";

    fn refusal(shown: &str, path: &str) -> Option<String> {
        Limits::read(shown).unwrap().refusal(Path::new(path))
    }

    #[test]
    fn what_the_unit_opens_may_be_written_and_nothing_else() {
        for open in [
            "/var/lib/pinwatch/pinwatch.db",
            "/var/log/pinwatch/outcomes.jsonl",
            "/nowhere/out/deep/er",
            "/nowhere/other/a",
        ] {
            assert_eq!(refusal(SHOWN, open), None, "{open}");
        }
        for (closed, told) in [
            ("/nowhere/outside/a", "ProtectSystem=strict forbids it"),
            ("/nowhere/outside/a", "ReadWritePaths=/nowhere/outside,"),
            ("/var/log/other.jsonl", "ReadWritePaths=/var/log,"),
            ("/nowhere/out/but/a", "ReadOnlyPaths=/nowhere/out/but forbids it"),
            ("/home/alice/a", "ProtectHome=yes hides"),
            ("/tmp/a", "by PrivateTmp=yes"),
        ] {
            assert!(refusal(SHOWN, closed).is_some_and(|why| why.contains(told)), "{closed}");
        }
    }

    #[test]
    fn what_is_hidden_no_setting_opens_again() {
        let opened = SHOWN.replace("ReadWritePaths=", "ReadWritePaths=/home/alice ");
        assert!(refusal(&opened, "/home/alice/a").is_some_and(|why| why.contains("Choose another")));
    }

    #[test]
    fn a_unit_without_limits_refuses_nothing_and_none_at_all_is_no_unit() {
        assert_eq!(
            refusal("LoadState=loaded\nProtectSystem=no\nPrivateTmp=no\nProtectHome=no\n", "/etc/a"),
            None
        );
        assert!(Limits::read("LoadState=not-found\n").is_none());
        assert!(Limits::read("").is_none());
    }

    #[tokio::test]
    async fn an_answer_is_that_of_a_process_that_ended_well() {
        let shell =
            |script: &str| Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        assert_eq!(answer(shell("echo a")).await.as_deref(), Some("a\n"));
        assert_eq!(answer(shell("echo a; exit 1")).await, None);
        tokio::time::pause();
        assert_eq!(answer(shell("exec sleep 600")).await, None);
    }
}
