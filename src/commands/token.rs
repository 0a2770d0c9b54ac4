//! `pinwatch token new`: makes a token of the API, and its line for `http.tokens_file`.
//!
//! Promises that the token is printed once, to stdout, and kept nowhere. Needs no daemon.

use secrecy::ExposeSecret;
use serde_json::json;

use super::cli::TokenNewArgs;
use super::error::CommandError;
use super::exit::Exit;
use super::output::{Output, note};
use crate::http::tokens::NewToken;

pub fn new(args: &TokenNewArgs, mut output: Output) -> Result<Exit, CommandError> {
    let TokenNewArgs { name, scope } = args;
    let NewToken { token, line } = NewToken::make(name, *scope).map_err(CommandError::Random)?;
    let token = token.expose_secret();
    if output.is_json() {
        let result = json!({"token": token, "line": line, "name": name.as_str(), "scope": scope.as_str()});
        output.json(result.to_string().as_bytes())?;
    } else {
        output.text(&format!("{token}\n"))?;
    }
    output.flush()?;
    note(
        "This is the only time that the token is shown. Append this line to http.tokens_file, then reload the daemon",
    );
    note("(systemctl reload pinwatch):");
    note(&line);
    Ok(Exit::Done)
}
