//! What the program prints about itself: `pinwatch completions`, `pinwatch man` and `pinwatch --version --verbose`.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use super::cli::Cli;
use super::error::CommandError;
use super::exit::Exit;
use super::output::Output;
use crate::build;

pub fn completions(shell: Shell) -> Result<Exit, CommandError> {
    // Generated in memory first, because the generator panics if it can't write, and a closed pipe must not cause a panic.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pinwatch", &mut script);
    print(&script)
}

pub fn man(dir: Option<&Path>) -> Result<Exit, CommandError> {
    let Some(dir) = dir else {
        let mut page = Vec::new();
        Man::new(Cli::command()).render(&mut page).map_err(CommandError::Output)?;
        return print(&page);
    };
    let failed =
        |error| CommandError::File { what: "write the manual pages into", path: dir.to_owned(), error };
    fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(failed)?;
    Ok(Exit::Done)
}

/// Prints what the program is built from.
pub fn build() -> Result<Exit, CommandError> {
    print(build::lines().as_bytes())
}

fn print(bytes: &[u8]) -> Result<Exit, CommandError> {
    let mut output = Output::for_people();
    output.text(&String::from_utf8_lossy(bytes))?;
    output.flush()?;
    Ok(Exit::Done)
}
