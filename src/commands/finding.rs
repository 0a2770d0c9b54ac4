//! What one check of `pinwatch doctor` found, and how all of them are printed.

use serde_json::json;

use super::error::CommandError;
use super::exit::Exit;
use super::human;
use super::output::{Output, note};
use crate::text::printable;

/// What one check found.
pub struct Finding {
    pub check: &'static str,
    pub is_well: bool,
    /// Nothing is wrong, but something could be improved.
    pub is_warning: bool,
    /// The finding, and what to do if it is a problem.
    pub what: String,
}

impl Finding {
    pub fn well(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, is_well: true, is_warning: false, what: what.into() }
    }

    pub fn warning(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, is_well: true, is_warning: true, what: what.into() }
    }

    pub fn ill(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, is_well: false, is_warning: false, what: what.into() }
    }
}

/// Prints the findings; the exit status is 1 if one of them is a problem.
pub fn print(findings: &[Finding], output: &mut Output) -> Result<Exit, CommandError> {
    for finding in findings {
        if output.is_json() {
            let mut line = json!({"check": finding.check, "ok": finding.is_well, "what": finding.what});
            if finding.is_warning {
                line["warning"] = true.into();
            }
            output.json(line.to_string().as_bytes())?;
        } else {
            let mark = match (finding.is_well, finding.is_warning) {
                (true, false) => "ok  ",
                (true, true) => "WARN",
                (false, _) => "BAD ",
            };
            output.text(&format!("{mark} {}: {}\n", finding.check, printable(&finding.what)))?;
        }
    }
    output.flush()?;
    let ill = findings.iter().filter(|finding| !finding.is_well).count() as u64;
    if ill > 0 {
        note(format_args!("{} found", human::count(ill, "problem")));
        return Ok(Exit::Failed);
    }
    Ok(Exit::Done)
}
