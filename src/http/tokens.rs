//! The tokens of the API, as `http.tokens_file` lists them: who has each, and what it allows.
//!
//! Promises that a token is compared by its SHA-256, with every line of the file and in constant time; that neither a token
//! nor what stands in place of a hash is ever in a message; and that a file which others could change is refused. Must not
//! know requests.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use ring::rand::{SecureRandom, SystemRandom};
use rustix::process::geteuid;
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;
use subtle::{ConditionallySelectable, ConstantTimeEq};
use thiserror::Error;

use super::room::ClientRoom;
use crate::paths::{OTHERS_WRITE, read_at_most};

/// The largest file of tokens, in bytes.
const MAX_FILE: usize = 1024 * 1024;

/// The most tokens of a file; each request is compared with all of them.
const MAX_TOKENS: usize = 10_000;

/// The longest name, in characters.
const MAX_NAME: usize = 64;

/// What a token begins with, so that scanners of source code recognize one.
const PREFIX: &str = "pinwatch_";

/// Random bytes of a secret.
const RANDOM: usize = 32;

pub(super) type Hash = [u8; SHA256_OUTPUT_LEN];

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Submitting PINs, and their outcomes one by one.
    Submit,
    /// Everything that changes nothing.
    Read,
    /// Everything.
    Admin,
}

impl Scope {
    pub const ALL: [Self; 3] = [Self::Submit, Self::Read, Self::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.as_str() == text)
            .ok_or("a scope is \"submit\", \"read\" or \"admin\"")
    }
}

/// The name of a token's holder: 1 to 64 characters of `A-Z a-z 0-9 . _ -`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same, cheap to clone.
    pub fn shared(&self) -> &Arc<str> {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(is_allowed) {
            return Ok(Self(text.into()));
        }
        Err("a name is 1 to 64 characters of A-Z a-z 0-9 . _ -")
    }
}

/// A client that showed a token.
#[derive(Debug, Clone)]
pub struct Client {
    pub name: Name,
    pub scope: Scope,
    /// All with this name share it.
    pub room: ClientRoom,
}

/// Which token it is, without the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenId(Hash);

/// The tokens of a file.
#[derive(Debug, Default)]
pub struct Tokens(Vec<(Hash, Client)>);

/// Why a file of tokens is not used.
#[derive(Debug, Error)]
pub enum TokensError {
    #[error("can't read {path} (http.tokens_file): {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0} (http.tokens_file) is not a regular file")]
    NotAFile(PathBuf),
    #[error(
        "others than its owner may write to {path} (http.tokens_file, mode {mode:04o}), so anybody could give \
         themselves a token: chmod go-w {path}"
    )]
    Open { path: PathBuf, mode: u32 },
    #[error(
        "{path} (http.tokens_file) belongs to user {owner}, who could give themselves a token at any time: change its \
         owner to root or to the daemon's user"
    )]
    OfOthers { path: PathBuf, owner: u32 },
    #[error("{0} (http.tokens_file) has more than 1 MiB, so it can't be the right file")]
    TooLarge(PathBuf),
    #[error("{path} (http.tokens_file), line {line}: {what}")]
    Line { path: PathBuf, line: usize, what: String },
}

impl Tokens {
    /// Reads the file for the user who runs the daemon.
    ///
    /// # Errors
    /// It can't be read, somebody else could change it, or a line is wrong. No message has a part of a token.
    pub fn read(path: &Path) -> Result<Self, TokensError> {
        Self::read_for(path, geteuid().as_raw())
    }

    /// As [`Tokens::read`], for a daemon of this user.
    ///
    /// # Errors
    /// As [`Tokens::read`].
    pub fn read_for(path: &Path, daemon: u32) -> Result<Self, TokensError> {
        let failed = |source| TokensError::Io { path: path.to_owned(), source };
        // Symbolic links are followed: Kubernetes mounts secrets as such.
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(TokensError::NotAFile(path.to_owned()));
        }
        let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
        if mode & OTHERS_WRITE != 0 {
            return Err(TokensError::Open { path: path.to_owned(), mode });
        }
        if ![0, daemon].contains(&owner) {
            return Err(TokensError::OfOthers { path: path.to_owned(), owner });
        }
        // By mistake, the file may contain a token itself.
        let bytes = read_at_most(file, MAX_FILE).map_err(failed)?;
        let bytes = bytes.ok_or_else(|| TokensError::TooLarge(path.to_owned()))?;
        Self::parse(&bytes).map_err(|(line, what)| TokensError::Line { path: path.to_owned(), line, what })
    }

    /// Reads lines `NAME SCOPE sha256:HEX`; on failure, which line is wrong and why.
    pub(super) fn parse(text: &[u8]) -> Result<Self, (usize, String)> {
        let (mut tokens, mut rooms, mut known) = (Vec::new(), BTreeMap::new(), HashSet::new());
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let wrong = |what: &str| (index + 1, what.to_owned());
            let line = str::from_utf8(line).map_err(|_| wrong("it isn't text"))?.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (hash, name, scope) = parse_line(line).map_err(wrong)?;
            if !known.insert(hash) {
                return Err(wrong("a line above has the same token: each line has its own"));
            }
            if tokens.len() == MAX_TOKENS {
                return Err((index + 1, format!("a file has at most {MAX_TOKENS} tokens")));
            }
            let room: &ClientRoom = rooms.entry(name.clone()).or_default();
            tokens.push((hash, Client { room: room.clone(), name, scope }));
        }
        Ok(Self(tokens))
    }

    /// Returns the holder of this token. Takes the same time, whether and wherever it is found.
    pub fn client(&self, token: &str) -> Option<&Client> {
        self.identify(token).map(|(_, client)| client)
    }

    /// As [`Tokens::client`], and which token it is.
    pub fn identify(&self, token: &str) -> Option<(TokenId, &Client)> {
        let hash = hash(token);
        let mut found = 0u32;
        for (number, (known, _)) in (1..).zip(&self.0) {
            found.conditional_assign(&number, known.as_slice().ct_eq(&hash));
        }
        let index = usize::try_from(found).ok()?.checked_sub(1)?;
        self.0.get(index).map(|(hash, client)| (TokenId(*hash), client))
    }

    /// Returns the holder of this token, if it is still in the file.
    pub fn holder(&self, id: &TokenId) -> Option<&Client> {
        self.0.iter().find(|(hash, _)| *hash == id.0).map(|(_, client)| client)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn parse_line(line: &str) -> Result<(Hash, Name, Scope), &'static str> {
    const SHAPE: &str = "must be NAME SCOPE sha256:HEX, as \"pinwatch token new\" prints it";
    let fields: Vec<_> = line.split_ascii_whitespace().collect();
    let [name, scope, hash] = fields[..] else { return Err(SHAPE) };
    let (name, scope) = (name.parse()?, scope.parse()?);
    let hex = hash.strip_prefix("sha256:").ok_or(SHAPE)?;
    let hash = hash_of(hex).ok_or(
        "\"sha256:\" must be followed by 64 hexadecimal digits, as \"pinwatch token new\" prints them",
    )?;
    Ok((hash, name, scope))
}

fn hash_of(hex: &str) -> Option<Hash> {
    if hex.len() != 2 * SHA256_OUTPUT_LEN || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = Hash::default();
    for (byte, at) in hash.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()?;
    }
    Some(hash)
}

/// A new random token.
pub struct NewToken {
    pub token: SecretString,
    /// Its line for the file of tokens.
    pub line: String,
}

impl NewToken {
    /// # Errors
    /// The system has no random numbers.
    pub fn make(name: &Name, scope: Scope) -> Result<Self, NoRandomNumbers> {
        let token = format!("{PREFIX}{}", random()?);
        let hash: String = hash(&token).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { token: token.into(), line: format!("{name} {scope} sha256:{hash}") })
    }
}

/// What is kept of a secret.
pub(super) fn hash(secret: &str) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
    hash
}

/// Returns a secret that nobody can guess, in characters that headers and URLs allow.
pub(super) fn random() -> Result<String, NoRandomNumbers> {
    let mut bytes = Zeroizing::new([0; RANDOM]);
    SystemRandom::new().fill(bytes.as_mut_slice()).map_err(|_| NoRandomNumbers)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[derive(Debug, Error)]
#[error("the system gives no random numbers (getrandom)")]
pub struct NoRandomNumbers;

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;

    fn new(name: &str, scope: Scope) -> NewToken {
        NewToken::make(&name.parse().unwrap(), scope).unwrap()
    }

    #[test]
    fn a_new_token_is_accepted_through_its_line_and_no_other_token_is() {
        let made: Vec<_> = Scope::ALL.map(|scope| (scope, new("app", scope))).into();
        let file = made.iter().map(|(_, new)| format!("{}\n", new.line)).collect::<String>();
        let tokens = Tokens::parse(format!("# tokens\n\n  {file}").as_bytes()).unwrap();
        assert_eq!(tokens.len(), 3);
        for (scope, new) in &made {
            let token = new.token.expose_secret();
            assert!(token.len() == PREFIX.len() + 43 && token.starts_with(PREFIX), "{token}");
            assert!(!new.line.contains(&token[PREFIX.len()..]));
            let client = tokens.client(token).unwrap();
            assert_eq!((client.name.as_str(), client.scope), ("app", *scope));
            for other in [&token[1..], &format!("{token} "), &token.to_uppercase(), ""] {
                assert!(tokens.client(other).is_none(), "{other}");
            }
        }
        assert!(Tokens::default().client("").is_none());
    }

    #[test]
    fn an_invalid_line_of_the_tokens_file_is_named_without_quoting_a_token() {
        let good = new("app", Scope::Read).line;
        let token = new("app", Scope::Read).token.expose_secret().to_owned();
        for (file, line, what) in [
            (format!("{good}\n{good}"), 2, "the same token"),
            (format!("app read {token}"), 1, "must be NAME SCOPE sha256:HEX"),
            (format!("app read sha256:{token}"), 1, "64 hexadecimal digits"),
            (format!("#\n\n{token}"), 3, "must be NAME SCOPE sha256:HEX"),
            (format!("{token} read x"), 1, "must be NAME SCOPE sha256:HEX"),
            (format!("{good} # mine"), 1, "must be NAME SCOPE sha256:HEX"),
            (good.replace("read", "write"), 1, "\"submit\", \"read\" or \"admin\""),
            (good.replace("app", "äpp"), 1, "1 to 64 characters"),
            (good.replace("app", &"a".repeat(65)), 1, "1 to 64 characters"),
        ] {
            let (at, found) = Tokens::parse(file.as_bytes()).unwrap_err();
            assert!(at == line && found.contains(what), "{file}: line {at}: {found}");
            assert!(!found.contains(&token), "{found}");
        }
        assert!(Tokens::parse(b"\xff").is_err());
        let many = |count: usize| (0..count).map(|n| format!("a read sha256:{n:064x}\n")).collect::<String>();
        assert_eq!(Tokens::parse(many(MAX_TOKENS).as_bytes()).unwrap().len(), MAX_TOKENS);
        assert_eq!(Tokens::parse(many(MAX_TOKENS + 1).as_bytes()).unwrap_err().0, MAX_TOKENS + 1);
    }

    #[test]
    fn a_file_that_others_could_change_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        fs::write(&path, new("app", Scope::Submit).line).unwrap();
        for (mode, is_taken) in [(0o600, true), (0o644, true), (0o664, false), (0o602, false)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let read = Tokens::read(&path);
            assert_eq!(read.is_ok(), is_taken, "{mode:o}");
            assert!(read.is_ok() || matches!(read, Err(TokensError::Open { .. })));
        }
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let owner = fs::metadata(&path).unwrap().uid();
        let read = Tokens::read_for(&path, owner + 1);
        assert!(owner == 0 || matches!(read, Err(TokensError::OfOthers { .. })), "{read:?}");
        assert!(matches!(Tokens::read(folder.path()), Err(TokensError::NotAFile(_))));
        fs::write(&path, "#".repeat(MAX_FILE + 1)).unwrap();
        assert!(matches!(Tokens::read(&path), Err(TokensError::TooLarge(_))));
        assert!(matches!(Tokens::read(&folder.path().join("none")), Err(TokensError::Io { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_as_tokens_or_refused(bytes: Vec<u8>, line in "[a-z#: 0-9\n]{0,200}") {
            let _ = Tokens::parse(&bytes);
            let _ = Tokens::parse(line.as_bytes());
        }
    }
}
