//! Finds secrets in text from outside and removes them.
//!
//! Guarantees to find a secret that is written plainly, as JSON, as a URL or as HTML, even if encoded up to four
//! times, and to find four or more bytes of its beginning at the end of a text that was cut off. The caller says below
//! which length a secret is replaced only where it is a whole word. Pure. Must not know which texts are secret.

use memchr::memmem;
use percent_encoding::percent_decode_str;

/// How many encodings are undone, one inside the other: JSON within JSON, a URL within HTML.
const MAX_DECODINGS: usize = 4;

/// The shortest beginning of a secret that is removed at the end of a text, in bytes.
const SHORTEST_BEGINNING: usize = 4;

const REPLACEMENT: &str = "***";

/// Returns the text with every secret replaced by `***`. The caller passes [`decoded`] text and [`normal`] secrets.
/// Secrets shorter than `long` bytes are replaced only where they are whole words.
pub fn without<'a>(text: &str, secrets: impl Iterator<Item = &'a str>, long: usize) -> String {
    // ASCII lower-casing keeps every byte offset.
    let normal_text = text.to_ascii_lowercase();
    let mut hidden = vec![false; text.len()];
    for secret in secrets.filter(|secret| !secret.is_empty()) {
        for start in memmem::find_iter(normal_text.as_bytes(), secret) {
            let end = start + secret.len();
            if secret.len() >= long || is_word(&normal_text, start, end) {
                hidden[start..end].fill(true);
            }
        }
        if let Some(start) = cut_off(&normal_text, secret) {
            hidden[start..].fill(true);
        }
    }
    let mut clean = String::with_capacity(text.len());
    let mut was_hidden = false;
    for (at, character) in text.char_indices() {
        match hidden[at] {
            false => clean.push(character),
            true if !was_hidden => clean.push_str(REPLACEMENT),
            true => {}
        }
        was_hidden = hidden[at];
    }
    clean
}

fn is_word(text: &str, start: usize, end: usize) -> bool {
    let touches = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    !touches(start.checked_sub(1).and_then(|before| bytes.get(before))) && !touches(bytes.get(end))
}

/// Returns where a beginning of the secret starts at the end of the text.
fn cut_off(text: &str, secret: &str) -> Option<usize> {
    let longest = secret.len().saturating_sub(1).min(text.len());
    let length = (SHORTEST_BEGINNING..=longest).rev().find(|length| {
        secret.as_bytes().get(..*length).is_some_and(|beginning| text.as_bytes().ends_with(beginning))
    })?;
    Some(text.len() - length)
}

/// Converts a secret to the form that [`without`] searches for.
pub fn normal(secret: &str) -> String {
    decoded(secret).to_ascii_lowercase()
}

/// Returns the text with up to [`MAX_DECODINGS`] layers of encoding removed.
pub fn decoded(text: &str) -> String {
    let mut text = text.to_owned();
    for _ in 0..MAX_DECODINGS {
        let once = percent_decode_str(&without_html(&without_json(&text))).decode_utf8_lossy().into_owned();
        if once == text {
            break;
        }
        text = once;
    }
    text
}

/// Decodes JSON's escapes (RFC 8259, section 7).
fn without_json(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let escape = &rest[at..];
        let mut chars = escape.chars();
        let (character, length) = match chars.by_ref().nth(1) {
            Some('u') => utf16(escape),
            Some('n' | 'r' | 't' | 'b' | 'f') => (Some(' '), 2),
            Some(character @ ('"' | '\\' | '/')) => (Some(character), 2),
            _ => (None, 0),
        };
        match character {
            Some(character) => {
                plain.push(character);
                rest = &escape[length..];
            }
            None => {
                plain.push('\\');
                rest = &escape[1..];
            }
        }
    }
    plain.push_str(rest);
    plain
}

/// Decodes one `\uXXXX` or a surrogate pair; returns the character and the escape's length in bytes.
fn utf16(escape: &str) -> (Option<char>, usize) {
    let unit = |at: usize| {
        let digits = escape.get(at..)?.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let units = unit(0).into_iter().chain(unit(6));
    match char::decode_utf16(units).next() {
        Some(Ok(character)) => (Some(character), 6 * character.len_utf16()),
        _ => (None, 0),
    }
}

/// Decodes HTML's character references: numeric ones, and those of the characters that must be escaped.
fn without_html(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        plain.push_str(&rest[..at]);
        let reference = rest[at + 1..].split_once(';').map(|(name, _)| name).filter(|name| name.len() <= 8);
        let character = reference.and_then(|name| match name {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            _ => {
                let number = name.strip_prefix('#')?;
                let hexadecimal =
                    number.strip_prefix(['x', 'X']).map(|digits| u32::from_str_radix(digits, 16));
                char::from_u32(hexadecimal.unwrap_or_else(|| number.parse()).ok()?)
            }
        });
        match (character, reference) {
            (Some(character), Some(name)) => {
                plain.push(character);
                rest = &rest[at + name.len() + 2..];
            }
            _ => {
                plain.push('&');
                rest = &rest[at + 1..];
            }
        }
    }
    plain.push_str(rest);
    plain
}
