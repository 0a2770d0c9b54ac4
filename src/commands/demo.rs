//! `pinwatch demo`

use super::cli::DemoArgs;
use super::error::CommandError;
use super::exit::Exit;

pub fn run(args: &DemoArgs) -> Result<Exit, CommandError> {
    let _ = args;
    Err(CommandError::Demo("not written yet".to_owned()))
}
