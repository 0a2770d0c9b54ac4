//! Measures what the client commands cost to start, and how large the binary is.

use std::process::{Command, Stdio};

use super::daemon::{Home, NEVER_DUE, program};
use super::process::children_cpu;
use super::report::{Asked, Report};

const TIMES: u32 = 40;

pub fn measure(report: &mut Report, runs: usize) {
    let home = Home::new("http://127.0.0.1:9");
    let _daemon = home.start(None, &NEVER_DUE);
    for name in ["ping", "stats"] {
        let spent = (0..runs).map(|_| {
            let before = children_cpu();
            for _ in 0..TIMES {
                let mut command = Command::new(program());
                command.arg(name).arg("--socket").arg(home.socket()).stdout(Stdio::null());
                assert!(command.status().expect("the command").success(), "{name} failed");
            }
            (children_cpu() - before).as_secs_f64() * 1000.0 / f64::from(TIMES)
        });
        let what = format!("CPU of `pinwatch {name}`");
        report.figure(&what, spent.collect(), "ms", Asked::AtMost(10.0));
    }
    let size = std::fs::metadata(program()).expect("the binary").len();
    report.figure("release binary", vec![size as f64 / 1e6], "MB", Asked::AtMost(15.0));
}
