//! Decodes a body by its `Content-Encoding` (RFC 9110, section 8.4).
//!
//! Promises to hold at most [`MAX_BODY`] decompressed bytes, whatever the body contains. Pure. Must not know what a body means.

use std::io::Read;

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use reqwest::header::{CONTENT_ENCODING, HeaderMap};

use super::answer::MAX_BODY;
use crate::http_client::harmless;

/// U+FEFF in UTF-8. JSON must not begin with it (RFC 8259, section 8.1), but some servers send it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The most encodings of a body. The API applies at most one; a proxy may add another.
const MOST_CODINGS: usize = 2;

/// The body is too large, as received or decompressed.
pub(super) fn too_large() -> String {
    format!("the body is over {} KiB", MAX_BODY / 1024)
}

/// The body as the API wrote it.
///
/// # Errors
/// It can't be decoded; the short text with the reason is safe to log.
pub(super) fn plain(headers: &HeaderMap, body: Bytes) -> Result<Bytes, String> {
    let mut body = body;
    for (undone, coding) in codings(headers).rev().enumerate() {
        if undone == MOST_CODINGS {
            return Err(format!("the body is encoded more than {MOST_CODINGS} times"));
        }
        if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") {
            body = decompressed(&body)?.into();
        } else {
            let coding = harmless(&String::from_utf8_lossy(coding));
            return Err(format!("the body is encoded as {coding:?}, and gzip alone was asked for"));
        }
    }
    if body.starts_with(BYTE_ORDER_MARK) {
        body = body.slice(BYTE_ORDER_MARK.len()..);
    }
    Ok(body)
}

/// In the order in which they were applied, without those that change nothing.
fn codings(headers: &HeaderMap) -> impl DoubleEndedIterator<Item = &[u8]> {
    let lines: Vec<&[u8]> = headers.get_all(CONTENT_ENCODING).iter().map(|line| line.as_bytes()).collect();
    let codings = lines.into_iter().flat_map(|line| line.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    codings.filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"))
}

/// All members of a gzip file (RFC 1952, section 2.2), one after the other.
fn decompressed(body: &[u8]) -> Result<Vec<u8>, String> {
    let mut plain = Vec::new();
    if body.is_empty() {
        return Ok(plain);
    }
    let mut limited = MultiGzDecoder::new(body).take(MAX_BODY as u64 + 1);
    limited
        .read_to_end(&mut plain)
        .map_err(|error| harmless(&format!("the body is cut off or broken: gzip: {error}")))?;
    if plain.len() > MAX_BODY { Err(too_large()) } else { Ok(plain) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder};
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn read(codings: &[&str], body: &[u8]) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        for coding in codings {
            headers.append(CONTENT_ENCODING, HeaderValue::from_str(coding).unwrap());
        }
        plain(&headers, Bytes::copy_from_slice(body)).map(|body| String::from_utf8_lossy(&body).into_owned())
    }

    fn good(text: &str) -> Result<String, String> {
        Ok(text.to_owned())
    }

    #[test]
    fn every_name_of_the_gzip_coding_is_understood() {
        for coding in ["gzip", "GZIP", "x-gzip", "X-GZip", " gzip ", "identity, gzip", "gzip,"] {
            assert_eq!(read(&[coding], &gzip(b"[]")), good("[]"), "{coding}");
        }
        assert_eq!(read(&["gzip, x-gzip"], &gzip(&gzip(b"[]"))), good("[]"));
        assert_eq!(read(&["gzip", "gzip"], &gzip(&gzip(b"[]"))), good("[]"));
        assert!(
            read(&["gzip, gzip, gzip"], &gzip(&gzip(&gzip(b"[]"))))
                .unwrap_err()
                .contains("more than 2 times")
        );
        for coding in ["", "identity", "IDENTITY"] {
            assert_eq!(read(&[coding], b"[]"), good("[]"), "{coding}");
        }
        assert_eq!((read(&[], b"[]"), read(&["gzip"], b"")), (good("[]"), good("")));
    }

    #[test]
    fn all_members_of_a_gzip_body_are_read() {
        let members = [gzip(b"[{\"status\":"), gzip(b""), gzip(b"\"A\"}]")].concat();
        assert_eq!(read(&["gzip"], &members), good("[{\"status\":\"A\"}]"));
    }

    #[test]
    fn a_byte_order_mark_is_left_out_compressed_or_not() {
        assert_eq!(read(&[], b"\xef\xbb\xbf[]"), good("[]"));
        assert_eq!(read(&["gzip"], &gzip(b"\xef\xbb\xbf[]")), good("[]"));
    }

    #[test]
    fn a_body_that_grows_beyond_the_limit_is_not_held() {
        let bomb = |size: usize| gzip(&vec![b' '; size]);
        assert_eq!(read(&["gzip"], &bomb(MAX_BODY)).unwrap().len(), MAX_BODY);
        for bomb in [bomb(MAX_BODY + 1), bomb(50_000_000), bomb(MAX_BODY).repeat(2)] {
            assert_eq!(read(&["gzip"], &bomb), Err("the body is over 64 KiB".to_owned()));
        }
        assert_eq!(read(&["gzip, gzip"], &gzip(&bomb(5_000_000))), Err("the body is over 64 KiB".to_owned()));
    }

    #[test]
    fn a_content_coding_that_was_not_requested_is_named() {
        let mut deflate = DeflateEncoder::new(Vec::new(), Compression::fast());
        deflate.write_all(b"[]").unwrap();
        let deflate = deflate.finish().unwrap();
        for coding in ["deflate", "br", "gzip, deflate", "deflate, gzip"] {
            let error = read(&[coding], &deflate).unwrap_err();
            let name = if coding == "deflate, gzip" { "gzip" } else { coding.rsplit(' ').next().unwrap() };
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_broken_or_half_gzip_body_is_an_error() {
        let whole = gzip(b"[{\"status\":\"MESSAGE_DELIVERED\"}]");
        for length in 1..whole.len() {
            let error = read(&["gzip"], &whole[..length]).unwrap_err();
            assert!(error.starts_with("the body is cut off or broken: "), "{error}");
        }
        assert!(read(&["gzip"], b"[]").is_err());
        assert!(read(&["gzip"], &[whole, b"rubbish".to_vec()].concat()).is_err());
    }

    proptest! {
        #[test]
        fn no_body_causes_a_panic_or_is_decompressed_beyond_the_limit(body: Vec<u8>, coding in "(gzip|x-gzip|, ?|[a-z]{0,3}){0,4}") {
            let headers = HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_str(&coding).unwrap())]);
            let size = body.len();
            if let Ok(plain) = plain(&headers, body.into()) {
                prop_assert!(plain.len() <= MAX_BODY.max(size));
            }
        }
    }
}
