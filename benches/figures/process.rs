//! A process that is measured: pinned to a core, observed through /proc, killed when it is dropped.

use std::path::Path;
use std::process::{Child, ChildStdout, Command};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// `/proc` counts processor time in this unit. It is part of Linux' interface and does not depend on the kernel's own tick.
const TICKS_A_SECOND: f64 = 100.0;

/// The core of the measured process: the daemon, or the plain loop that it is compared with.
pub const MEASURED: usize = 0;

/// The core of the server that both poll.
pub const SERVER: usize = 1;

/// A child process; it does not outlive this.
pub struct Process(Child);

impl Process {
    /// Starts a command, on one core if there is a second one.
    pub fn start(mut command: Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?} can't be started: {error}")))
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Processor time so far, of all threads, including time in the kernel.
    pub fn cpu(&self) -> Duration {
        ticks(&self.read("stat"), 11)
    }

    /// Resident memory now, in bytes.
    pub fn resident(&self) -> f64 {
        self.number("status", "VmRSS:") * 1024.0
    }

    /// Bytes that it has caused to be written to the disk so far.
    pub fn written(&self) -> f64 {
        self.number("io", "write_bytes:")
    }

    /// Its standard output, if that was piped.
    pub fn stdout(&mut self) -> ChildStdout {
        self.0.stdout.take().expect("a pipe")
    }

    /// Sends a signal.
    pub fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("a child");
    }

    /// Sends a signal that ends it, and waits for the end.
    pub fn end(&mut self, signal: Signal) {
        self.send(signal);
        self.0.wait().expect("a child");
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("a child").is_some()
    }

    /// Kills it, as `kill -9` does.
    pub fn kill(&mut self) {
        // Fails only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    fn number(&self, file: &str, name: &str) -> f64 {
        let text = self.read(file);
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.split_whitespace().next().and_then(|number| number.parse().ok()).expect(name)
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.id())).expect("a running process")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns a command that runs only on this core, or on any core if none is given or the machine does not have it.
pub fn pinned(core: Option<usize>, program: &Path) -> Command {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let Some(core) = core.filter(|core| *core < cores) else { return Command::new(program) };
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

/// Processor time of all children that have ended and were waited for.
pub fn children_cpu() -> Duration {
    ticks(&std::fs::read_to_string("/proc/self/stat").expect("/proc"), 13)
}

/// Processor time of a process and its children, including children that have ended.
pub fn family_cpu(parent: i64) -> Duration {
    let own = |stat: &str| ticks(stat, 11);
    let all = std::fs::read_dir("/proc").expect("/proc").flatten();
    let stats = all.filter_map(|process| std::fs::read_to_string(process.path().join("stat")).ok());
    let of_family = |stat: String| {
        if stat.starts_with(&format!("{parent} ")) {
            // The parent's own line contains the time of children that have ended.
            own(&stat) + ticks(&stat, 13)
        } else if fields(&stat).nth(1) == Some(&parent.to_string()) {
            own(&stat)
        } else {
            Duration::ZERO
        }
    };
    stats.map(of_family).sum()
}

/// The sum of two fields of a `stat` line; `first` counts from the field "state".
fn ticks(stat: &str, first: usize) -> Duration {
    let ticks: f64 = fields(stat).skip(first).take(2).map(|field| field.parse::<f64>().expect("ticks")).sum();
    Duration::from_secs_f64(ticks / TICKS_A_SECOND)
}

/// The fields of a `stat` line from the field "state" on.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    // The process name before it may contain any character.
    stat.rsplit_once(") ").expect("a name").1.split(' ')
}
