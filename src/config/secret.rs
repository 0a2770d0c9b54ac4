//! Reads a secret from its file, and checks whether other users can read that file.
//!
//! Promises that the size is bounded, that newlines at the end are removed, and that no error contains a part of the content.
//! Must not know what the secret is for.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use secrecy::SecretString;
use thiserror::Error;

use crate::paths::read_at_most;

/// The largest accepted file, in bytes: far more than any key needs, so that a wrong file is not read completely.
const LONGEST: usize = 8 * 1024;

/// Why a file contains no usable secret.
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

/// Returns the content of the file without newlines at its end. Reads at most 8 KiB.
pub(super) fn read(path: &Path) -> Result<SecretString, SecretFileError> {
    let bytes = read_at_most(File::open(path)?, LONGEST)?.ok_or(SecretFileError::TooLarge)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| SecretFileError::NotText)?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(SecretFileError::Empty),
        text => Ok(text.into()),
    }
}

/// Returns the mode of the file if every user of this machine can read it: the file's own bits allow it, and so do those of all
/// folders above it.
pub(super) fn mode_if_open_to_all(path: &Path) -> Option<u32> {
    let path = fs::canonicalize(path).ok()?;
    let mode = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.mode() & 0o7777);
    let is_open =
        mode(&path) & 0o004 != 0 && path.ancestors().skip(1).all(|folder| mode(folder) & 0o001 != 0);
    is_open.then(|| mode(&path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_secret_is_read_without_its_newline_and_never_quoted_in_an_error() {
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

    #[test]
    fn every_user_can_read_a_file_only_if_its_mode_and_all_its_folders_allow_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "abc").unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        for (of_folder, of_file, expected) in [
            (0o755, 0o644, Some(0o644)),
            (0o711, 0o604, Some(0o604)),
            (0o700, 0o644, None),
            (0o755, 0o640, None),
        ] {
            mode(folder.path(), of_folder);
            mode(&path, of_file);
            // Unless the folder for temporary files is closed to others.
            let above = mode_if_open_to_all(folder.path().parent().unwrap());
            assert_eq!(
                mode_if_open_to_all(&path),
                expected.filter(|_| above.is_some()),
                "{of_folder:o} {of_file:o}"
            );
        }
    }
}
