//! `pinwatch presets`: lists the APIs that `api.preset` can name, or prints one as TOML.

use serde_json::json;

use super::cli::PresetsArgs;
use super::error::CommandError;
use super::exit::Exit;
use super::output::Output;
use super::table::Column;
use crate::config::{PRESETS, Preset};

pub fn run(args: &PresetsArgs, mut output: Output) -> Result<Exit, CommandError> {
    let named = args.name.as_deref().and_then(Preset::named);
    if output.is_json() {
        let chosen = PRESETS.iter().filter(|preset| named.is_none_or(|named| named == *preset));
        for preset in chosen {
            let line = json!({"name": preset.name, "summary": preset.summary(), "toml": preset.toml});
            output.json(line.to_string().as_bytes())?;
        }
    } else if let Some(preset) = named {
        output.text(preset.toml)?;
    } else {
        let rows: Vec<_> =
            PRESETS.iter().map(|preset| [preset.name.to_owned(), preset.summary().to_owned()]).collect();
        output.table([Column::new("NAME", 1), Column::new("API", 2).down_to(20)], &rows)?;
    }
    output.flush()?;
    Ok(Exit::Done)
}
