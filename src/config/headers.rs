//! `headers` and `headers_file` of a webhook: additional headers, whose values count as secrets.
//!
//! Promises that each name and value may be sent, that no header takes the place of one that pinwatch or the connection sets,
//! and that no message contains a value. Must not know more about HTTP than which characters and names headers may have.

use std::fmt;

use config::ValueKind;
use reqwest::header::HeaderName;
use secrecy::{ExposeSecret, SecretString};

use super::read::text_of;
use super::secret;
use super::section::{Section, quoted};

/// The most headers, and the most bytes of all names and values: about what servers accept.
const MOST: usize = 32;
const MOST_BYTES: usize = 8 * 1024;

/// The names that pinwatch sets itself, and those that belong to the connection (RFC 9110, section 7.6.1). Receivers know
/// pinwatch by its `User-Agent`.
const RESERVED: [&str; 19] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

/// Headers in the order of their names, which are in lower case and differ.
#[derive(Clone, Default)]
pub struct Headers(Vec<(String, SecretString)>);

impl Headers {
    pub fn iter(&self) -> impl Iterator<Item = (&str, &SecretString)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Adds the headers of a table, `{ Name = "value" }`.
    fn add_table(&mut self, written: &ValueKind) -> Result<(), String> {
        let not_a_table = || "must be a table of strings, { X-Name = \"value\" }".to_owned();
        let ValueKind::Table(table) = written else { return Err(not_a_table()) };
        for (name, value) in table {
            let added = self.add(name, text_of(&value.kind).map_err(|_| not_a_table())?);
            added.map_err(|reason| {
                format!("must be headers that can be sent, and {} is none: {reason}", quoted(name))
            })?;
        }
        Ok(())
    }

    /// Adds the headers of a file, one `Name: value` in each line.
    fn add_lines(&mut self, text: &str) -> Result<(), String> {
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_matches([' ', '\t']);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let added = match line.split_once(':') {
                Some((name, value)) => self.add(name, value.trim_matches([' ', '\t'])),
                None => Err("it must be written `Name: value`".to_owned()),
            };
            added.map_err(|reason| format!("can't use line {} of this file: {reason}", index + 1))?;
        }
        Ok(())
    }

    /// Adds one header. The error quotes neither name nor value: in a file, a secret may be where the name should be.
    fn add(&mut self, name: &str, value: &str) -> Result<(), String> {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| "its name must have only letters, digits and !#$%&'*+-.^_`|~".to_owned())?;
        let name = name.as_str();
        if RESERVED.contains(&name) {
            return Err("pinwatch or the connection sets it".to_owned());
        }
        let is_sent = |byte: u8| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t');
        if value.is_empty() || value.trim_ascii() != value || !value.bytes().all(is_sent) {
            return Err("its value must be ASCII without control characters, and not empty, and neither begin nor end \
                        with a space"
                .to_owned());
        }
        let at = match self.0.binary_search_by(|(known, _)| known.as_str().cmp(name)) {
            Ok(_) => return Err("it is given twice".to_owned()),
            Err(at) => at,
        };
        self.0.insert(at, (name.to_owned(), value.into()));
        let bytes: usize = self.iter().map(|(name, value)| name.len() + value.expose_secret().len()).sum();
        if self.0.len() > MOST || bytes > MOST_BYTES {
            return Err(format!(
                "there may be {MOST} headers at most, and {MOST_BYTES} bytes of names and values"
            ));
        }
        Ok(())
    }

    /// The names, for people.
    fn shown(&self) -> String {
        let names: Vec<&str> = self.iter().map(|(name, _)| name).collect();
        format!("set ({})", names.join(", "))
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        let exposed = |(name, value)| (name, SecretString::expose_secret(value));
        self.iter().map(exposed).eq(other.iter().map(exposed))
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Section<'_> {
    /// Reads the headers in `key`, and those in the file that `file_key` names.
    pub(super) fn headers(&mut self, key: &'static str, file_key: &'static str) -> Option<Headers> {
        let mut headers = Headers::default();
        let given = self.given(&[key, file_key]);
        if given.contains(&key) {
            self.hide(key);
            headers = self.read(key, "", |written| {
                headers.add_table(written)?;
                let shown = headers.shown();
                Ok((headers, shown))
            })?;
        }
        if given.contains(&file_key) {
            let path = self.path(file_key, "")?;
            self.warn_if_readable(file_key, &path);
            let text = secret::read(&path).map_err(|error| format!("can't use this file: {error}"));
            let added = text.and_then(|text| headers.add_lines(text.expose_secret()));
            added.map_or_else(|reason| self.refuse(file_key, reason), Some)?;
        }
        Some(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sink::SinkKind;
    use super::super::testing::{load, table};
    use super::*;

    /// A webhook sink with these additional keys.
    fn with(keys: &str) -> String {
        format!("[[sink]]\ntype = \"webhook\"\nurl = \"https://h.example/a\"\n{keys}")
    }

    fn headers(text: &str) -> Headers {
        match load(text).unwrap().sinks.remove(0).kind {
            SinkKind::Webhook(webhook) => webhook.headers,
            other => panic!("{other:?}"),
        }
    }

    fn file(text: &str) -> (tempfile::NamedTempFile, String) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let key = format!("headers_file = \"{}\"", file.path().display());
        (file, key)
    }

    #[test]
    fn headers_must_have_valid_names_and_values() {
        let one = |header: &str| with(&format!("headers = {{ {header} }}"));
        table(&[
            ("a table is taken", &one("X-Tenant = \"a b\", Authorization = \"Bearer 0123\""), ""),
            (
                "a string is none",
                &with("headers = \"X-Tenant: a\""),
                "sink[0].headers: must be a table of strings",
            ),
            ("a number is no value", &one("X-Tenant = 1"), "sink[0].headers: must be a table of strings"),
            (
                "a name has no space",
                &one("\"X Tenant\" = \"a\""),
                "sink[0].headers: must be headers that can be sent, and \"X Tenant\" is none: its name must have only",
            ),
            (
                "nor is it empty",
                &one("\"\" = \"a\""),
                "sink[0].headers: must be headers that can be sent, and \"\" is none: its name",
            ),
            (
                "a value has no end of line",
                &one("X-A = \"a\\r\\nX-B: b\""),
                "sink[0].headers: must be headers that can be sent, and \"X-A\" is none: its value must be ASCII",
            ),
            (
                "nor an umlaut",
                &one("X-A = \"ä\""),
                "sink[0].headers: must be headers that can be sent, and \"X-A\" is none: its value",
            ),
            (
                "nor is it empty",
                &one("X-A = \"\""),
                "sink[0].headers: must be headers that can be sent, and \"X-A\" is none: its value",
            ),
            (
                "nor has it space around it",
                &one("X-A = \" a\""),
                "sink[0].headers: must be headers that can be sent, and \"X-A\" is none: its value",
            ),
            (
                "names are the same in capitals",
                &one("X-A = \"1\", x-a = \"2\""),
                "sink[0].headers: must be headers that can be sent, and ",
            ),
        ]);
    }

    #[test]
    fn headers_that_pinwatch_or_the_connection_sets_are_refused_in_any_case() {
        for name in
            RESERVED.iter().copied().chain(["Host", "Content-Type", "Webhook-Signature", "User-Agent"])
        {
            let refused = load(&with(&format!("headers = {{ {name} = \"x\" }}"))).unwrap_err();
            let expected = format!("and \"{name}\" is none: pinwatch or the connection sets it");
            assert!(refused.len() == 1 && refused[0].ends_with(&expected), "{refused:?}");
        }
        assert!(RESERVED.is_sorted());
    }

    #[test]
    fn a_file_has_a_header_in_each_line_and_adds_to_the_table() {
        let (_kept, key) =
            file("# of the gateway\r\n\r\nX-Gateway-Key:  hunter2:x \r\nAuthorization: Bearer 0123\n");
        let headers = headers(&with(&format!("headers = {{ X-Tenant = \"a\" }}\n{key}")));
        let exposed: Vec<_> = headers.iter().map(|(name, value)| (name, value.expose_secret())).collect();
        assert_eq!(
            exposed,
            [("authorization", "Bearer 0123"), ("x-gateway-key", "hunter2:x"), ("x-tenant", "a")]
        );
        assert_eq!(format!("{headers:?}"), "set (authorization, x-gateway-key, x-tenant)");
    }

    #[test]
    fn an_invalid_header_file_is_refused_with_its_line_number_and_never_quoted() {
        for (text, expected) in [
            ("X-A: 1\nhunter2", "can't use line 2 of this file: it must be written `Name: value`"),
            ("hunter2 hunter2: 1", "can't use line 1 of this file: its name must have only"),
            ("\n\nX-A: hunter2\u{7f}", "can't use line 3 of this file: its value must be ASCII"),
            ("X-A:", "can't use line 1 of this file: its value must be ASCII"),
            ("Host: hunter2", "can't use line 1 of this file: pinwatch or the connection sets it"),
            ("X-A: hunter2\nx-a: hunter2", "can't use line 2 of this file: it is given twice"),
            ("", "can't use this file: it is empty"),
            (&"x".repeat(9000), "can't use this file: it has more than 8192 bytes"),
            (
                &(0..33).map(|n| format!("X-{n}: a\n")).collect::<String>(),
                "can't use line 33 of this file: there may be",
            ),
        ] {
            let (_kept, key) = file(text);
            let refused = load(&with(&key)).unwrap_err().join("; ");
            assert!(refused.starts_with(&format!("sink[0].headers_file: {expected}")), "{refused}");
            assert!(!refused.contains("hunter2"), "{refused}");
        }
        let (_kept, key) = file("X-A: 1");
        let twice = load(&with(&format!("headers = {{ x-a = \"1\" }}\n{key}"))).unwrap_err().join("; ");
        assert_eq!(twice, "sink[0].headers_file: can't use line 1 of this file: it is given twice");
        let long = with(&format!("headers = {{ X-A = \"{}\" }}", "x".repeat(8190)));
        let refused = load(&long).unwrap_err().join("; ");
        assert!(refused.contains("8192 bytes of names and values"), "{refused}");
    }

    #[test]
    fn headers_with_another_value_are_a_change_and_in_another_order_are_not() {
        let [one, same, other] =
            ["X-A = \"1\", X-B = \"2\"", "X-B = \"2\", X-A = \"1\"", "X-A = \"1\", X-B = \"3\""]
                .map(|table| headers(&with(&format!("headers = {{ {table} }}"))));
        assert!(one == same && one != other);
    }
}
