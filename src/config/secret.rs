//! Reading a secret out of its file.
//!
//! Promises: the size is bounded, the end of line that editors leave is taken off, and no error holds any of
//! the content. Must not know: what the secret is for.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;
use thiserror::Error;

/// Far more than any key has; somebody who names the wrong file is told so before it is all read.
const LONGEST: u64 = 8 * 1024;

/// Why a file gave no secret.
#[derive(Debug, Error)]
pub(super) enum SecretFileError {
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    #[error("it has more than {LONGEST} bytes, so it can't be the right file")]
    TooLarge,
    #[error("it is empty")]
    Empty,
    #[error("it isn't text")]
    NotText,
}

/// The content of the file without the ends of line behind it. At most 8 KiB are read.
pub(super) fn read(path: &Path) -> Result<SecretString, SecretFileError> {
    // In one piece from the start: a buffer that grows leaves copies behind that nobody overwrites.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST as usize + 2));
    File::open(path)?.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(SecretFileError::TooLarge);
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| SecretFileError::NotText)?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(SecretFileError::Empty),
        text => Ok(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_secret_comes_without_its_end_of_line_and_never_with_its_content_in_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let table: [(&str, &[u8], Result<&str, &str>); 7] = [
            ("a bare key is taken as it is", b"abc", Ok("abc")),
            ("the end of line of an editor goes", b"abc\n", Ok("abc")),
            ("that of Windows goes too", b"abc\r\n\r\n", Ok("abc")),
            ("white space within stays, for the checks to find", b" abc \n", Ok(" abc ")),
            ("a file with only an end of line is empty", b"\n", Err("it is empty")),
            ("a binary file is no key", b"\xff\xfe", Err("it isn't text")),
            (
                "a large file is no key",
                &[b'x'; 8193],
                Err("it has more than 8192 bytes, so it can't be the right file"),
            ),
        ];
        for (title, content, expected) in table {
            std::fs::write(&path, content).unwrap();
            let got = read(&path);
            let got = got.as_ref().map(|secret| secret.expose_secret()).map_err(|error| error.to_string());
            assert_eq!(got, expected.map_err(str::to_owned), "{title}");
        }
        assert!(matches!(read(&folder.path().join("none")), Err(SecretFileError::Unreadable(_))));
    }
}
