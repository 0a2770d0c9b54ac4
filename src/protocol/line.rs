//! Writes requests and answers as lines of JSON, reads answers, and defines the size limits.

use std::fmt;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::{Code, Refusal};
use super::request::Operation;
use crate::text::json_line;

/// The longest line of a request, in bytes, without its newline.
pub const MAX_LINE: usize = 64 * 1024;

/// The largest answer, in bytes. [`page`] ends a page before it exceeds this size. A single outcome is far smaller:
/// it holds what one request line held, at most three times as long when escaped, and a few KiB of deliveries.
pub const MAX_ANSWER: usize = 512 * 1024;

/// Writes a request as a line with its newline.
pub fn request<R: Operation>(request: &R) -> Vec<u8> {
    #[derive(Serialize)]
    struct Line<'a, R> {
        op: &'static str,
        #[serde(flatten)]
        request: &'a R,
    }
    line(&Line { op: R::NAME, request }).into_bytes()
}

/// Writes an answer as a line with its newline.
pub fn answer(answer: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct Line<'a, A> {
        ok: bool,
        #[serde(flatten)]
        answer: &'a A,
    }
    line(&Line { ok: true, answer })
}

/// Writes a refusal as a line with its newline.
pub fn refused(refusal: &Refusal) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        ok: bool,
        error: &'a Refusal,
    }
    line(&Line { ok: false, error: refusal })
}

/// Reads the line of an answer or a refusal.
pub fn read_answer<A: DeserializeOwned>(line: &[u8]) -> serde_json::Result<Result<A, Refusal>> {
    #[derive(Deserialize)]
    struct Envelope {
        ok: bool,
        error: Option<Refusal>,
    }
    let envelope: Envelope = serde_json::from_slice(line)?;
    if envelope.ok {
        return serde_json::from_slice(line).map(Ok);
    }
    let nameless = || Code::Other("unknown".to_owned()).because("it gave no reason");
    Ok(Err(envelope.error.unwrap_or_else(nameless)))
}

/// Returns as many items as fit into one answer, and the token after which the next page begins.
///
/// Each item comes with its own token; a page that is cut ends at its last item's. `next` is where the next page begins
/// if all items fit.
pub fn page<T: Serialize>(
    items: impl IntoIterator<Item = (T, String)>,
    next: Option<String>,
) -> (Vec<Raw<T>>, Option<String>) {
    let (mut page, mut last) = (Vec::new(), None);
    // Allows for the JSON around the items.
    let mut bytes = 128;
    for (item, token) in items {
        let item = Raw::new(&item);
        bytes += item.get().len() + 1;
        if last.is_some() && bytes + token.len() > MAX_ANSWER {
            return (page, last);
        }
        page.push(item);
        last = Some(token);
    }
    (page, next)
}

/// The JSON of a `T`, in the exact bytes that were received or will be sent. A client that prints it keeps every
/// member that a newer daemon adds, and every digit of a number.
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub struct Raw<T> {
    json: Box<RawValue>,
    #[serde(skip)]
    of: PhantomData<fn() -> T>,
}

impl<T> Raw<T> {
    /// # Errors
    /// The text is not JSON. This does not check whether it is a `T`.
    pub fn from_json(json: &str) -> serde_json::Result<Self> {
        RawValue::from_string(json.to_owned()).map(|json| Self { json, of: PhantomData })
    }

    pub fn get(&self) -> &str {
        self.json.get()
    }
}

impl<T> Raw<T> {
    /// Returns the same JSON without a type.
    pub fn untyped(&self) -> Raw<serde_json::Value> {
        Raw { json: self.json.clone(), of: PhantomData }
    }
}

impl<T: Serialize> Raw<T> {
    pub fn new(value: &T) -> Self {
        Self::from_json(&json(value)).expect("what was just written as JSON is JSON")
    }
}

impl<T: DeserializeOwned> Raw<T> {
    pub fn read(&self) -> serde_json::Result<T> {
        serde_json::from_str(self.get())
    }
}

impl<T> fmt::Debug for Raw<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get())
    }
}

fn line(value: &impl Serialize) -> String {
    let mut text = json(value);
    text.push('\n');
    text
}

/// Writes JSON without line breaks or harmful characters.
fn json(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).expect("structs and maps with string keys always serialize");
    json_line(json).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::ping;
    use super::*;

    #[test]
    fn an_answer_and_a_refusal_come_back_as_they_were_written() {
        let pong = ping::Answer { version: "1\u{2028}".into() };
        let line = answer(&pong);
        assert_eq!(line, "{\"ok\":true,\"version\":\"1\\u2028\"}\n");
        assert_eq!(read_answer::<ping::Answer>(line.as_bytes()).unwrap().unwrap().version, pong.version);
        let refusal = Code::AtCapacity.because("full");
        let line = refused(&refusal);
        assert_eq!(line, "{\"ok\":false,\"error\":{\"code\":\"at_capacity\",\"message\":\"full\"}}\n");
        assert_eq!(read_answer::<ping::Answer>(line.as_bytes()).unwrap().unwrap_err(), refusal);
        assert!(read_answer::<Value>(b"{\"ok\":false}").unwrap().is_err(), "no reason is a refusal as well");
        assert!(read_answer::<ping::Answer>(b"{\"ok\":true}").is_err(), "no answer is neither");
    }

    #[test]
    fn a_page_is_limited_in_length_and_names_the_start_of_the_next() {
        let item = |n: usize| (json!("\u{2028}".repeat(n)), n.to_string());
        let (page_, next) = page([item(1), item(2)], None);
        assert_eq!((page_.len(), next), (2, None));
        assert_eq!(page([item(1), item(2)], Some("9".to_owned())).1.as_deref(), Some("9"));
        // Each of these characters takes six bytes in its escaped form.
        let (page_, next) = page((0..1000).map(|_| item(1000)), None);
        assert_eq!(next.as_deref(), Some("1000"));
        let line = answer(&json!({"pins": page_, "next": next}));
        assert!((MAX_ANSWER - 7000..=MAX_ANSWER).contains(&line.len()), "{}", line.len());
        assert_eq!(page([item(100_000)], None).0.len(), 1, "one item is always sent");
    }

    #[test]
    fn raw_json_keeps_members_that_its_type_does_not_have() {
        let json = r#"{"version":"1","newer":1.50}"#;
        let raw: Raw<ping::Answer> = serde_json::from_str(json).unwrap();
        assert_eq!((raw.get(), raw.read().unwrap().version.as_str()), (json, "1"));
        assert_eq!(serde_json::to_string(&raw).unwrap(), json);
    }
}
