//! Builds the request for some outcomes: body, content type, ID and signatures.
//!
//! Promises that the same outcomes always make the same body under the same ID, so that a receiver can recognise a redelivery;
//! and that every secret signs as Standard Webhooks specifies. Pure: the time of the try is an argument. Must not know
//! connections, tries or answers.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use ring::{digest, hmac};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;
use uuid::Uuid;

use crate::config::WebhookFormat;
use crate::store::Outcome;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
pub const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// The `source` of a CloudEvent: a constant, because the `id` alone is unique.
const SOURCE: &str = "/pinwatch";

/// A stored text that can't be sent because it is not a record. Another try would not help.
#[derive(Debug, Error)]
#[error("the stored record of outcome {seq} can't be read: {error}")]
pub struct BadRecord {
    seq: i64,
    error: serde_json::Error,
}

/// A secret that can't sign: its position, never its value.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("signing secret {0} is not \"whsec_\" and base64")]
pub struct BadSecret(usize);

/// The request for some outcomes, not yet dated and signed.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// One outcome: its `id`. Several: a UUID (version 8) derived from their IDs, the same for the same outcomes in the same
    /// order.
    pub id: Uuid,
    pub content_type: &'static str,
    pub body: Bytes,
}

impl Message {
    /// Builds the message for these outcomes; `array` makes an array even for one of them, where the receiver expects arrays.
    ///
    /// # Errors
    /// A stored text is not a pinwatch record.
    pub fn of(outcomes: &[Outcome], format: WebhookFormat, array: bool) -> Result<Self, BadRecord> {
        let bad = |seq| move |error| BadRecord { seq, error };
        let mut ids = Vec::with_capacity(outcomes.len());
        let mut body = Vec::with_capacity(outcomes.iter().map(|outcome| outcome.record.len() + 300).sum());
        for outcome in outcomes {
            let known: Known = serde_json::from_str(&outcome.record).map_err(bad(outcome.seq))?;
            ids.push(known.id);
            body.push(if body.is_empty() { b'[' } else { b',' });
            match format {
                WebhookFormat::Record => body.extend_from_slice(outcome.record.as_bytes()),
                WebhookFormat::CloudEvents => {
                    let event = CloudEvent {
                        specversion: "1.0",
                        id: known.id,
                        source: SOURCE,
                        r#type: format!("pinwatch.outcome.{}", known.outcome),
                        subject: &known.pin_id,
                        time: &known.finished_at,
                        datacontenttype: "application/json",
                        data: serde_json::from_str(&outcome.record).map_err(bad(outcome.seq))?,
                    };
                    serde_json::to_writer(&mut body, &event).map_err(bad(outcome.seq))?;
                }
            }
        }
        body.push(b']');
        let body = Bytes::from(body);
        let body = if array { body } else { body.slice(1..body.len() - 1) };
        let content_type = match (format, array) {
            (WebhookFormat::Record, _) => "application/json",
            (WebhookFormat::CloudEvents, false) => "application/cloudevents+json",
            (WebhookFormat::CloudEvents, true) => "application/cloudevents-batch+json",
        };
        Ok(Self { id: message_id(&ids), content_type, body })
    }

    /// The headers of a try at this time, in seconds since the Unix epoch. Unsigned if there is no secret.
    pub fn headers(&self, signer: &Signer, timestamp: i64) -> HeaderMap {
        let id = self.id.hyphenated().to_string();
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(WEBHOOK_TIMESTAMP, timestamp.into());
        // Neither can fail: both contain only characters that headers allow (hexadecimal digits, hyphens, base64, commas,
        // spaces).
        if let Some(signature) = signer.sign(&id, timestamp, &self.body)
            && let Ok(mut signature) = HeaderValue::try_from(signature)
        {
            // Keeps it out of Debug output and of HTTP/2's compression table.
            signature.set_sensitive(true);
            headers.insert(WEBHOOK_SIGNATURE, signature);
        }
        if let Ok(id) = HeaderValue::try_from(id) {
            headers.insert(WEBHOOK_ID, id);
        }
        headers
    }
}

fn message_id(ids: &[Uuid]) -> Uuid {
    if let [id] = ids {
        return *id;
    }
    let mut hash = digest::Context::new(&digest::SHA256);
    ids.iter().for_each(|id| hash.update(id.as_bytes()));
    let mut bytes = [0; 16];
    // SHA-256 has 32 bytes.
    bytes.iter_mut().zip(hash.finish().as_ref()).for_each(|(byte, hashed)| *byte = *hashed);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// The fields of a record that headers and envelopes need.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Known<'a> {
    id: Uuid,
    #[serde(borrow)]
    pin_id: Cow<'a, str>,
    #[serde(borrow)]
    outcome: Cow<'a, str>,
    #[serde(borrow)]
    finished_at: Cow<'a, str>,
}

/// CloudEvents 1.0, structured mode, JSON.
#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: Uuid,
    source: &'static str,
    r#type: String,
    subject: &'a str,
    time: &'a str,
    datacontenttype: &'static str,
    data: &'a RawValue,
}

/// Signs with every secret: during a rotation, receivers have either the old or the new one.
pub struct Signer {
    keys: Vec<hmac::Key>,
}

impl Signer {
    /// Creates a signer with these secrets, `whsec_` and base64; there may be none.
    ///
    /// # Errors
    /// A secret has another form, which the configuration refuses earlier.
    pub fn new(secrets: &[SecretString]) -> Result<Self, BadSecret> {
        let key = |(index, secret): (usize, &SecretString)| {
            let encoded = secret.expose_secret().strip_prefix("whsec_").ok_or(BadSecret(index))?;
            let bytes = BASE64.decode(encoded).map(Zeroizing::new).map_err(|_| BadSecret(index))?;
            Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
        };
        Ok(Self { keys: secrets.iter().enumerate().map(key).collect::<Result<_, _>>()? })
    }

    /// `v1,BASE64` for each secret, separated by spaces; `None` without secrets.
    fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> Option<String> {
        let signature = |key| {
            let mut hmac = hmac::Context::with_key(key);
            hmac.update(format!("{id}.{timestamp}.").as_bytes());
            hmac.update(body);
            format!("v1,{}", BASE64.encode(hmac.sign()))
        };
        let signatures: Vec<String> = self.keys.iter().map(signature).collect();
        (!signatures.is_empty()).then(|| signatures.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0193e6a0-0000-7000-8000-000000000001";

    fn outcome(seq: i64) -> Outcome {
        let id = ID.replace("0001", &format!("{seq:04}"));
        let record = format!(
            r#"{{"seq":{seq},"id":"{id}","pinId":"PIN-{seq}","outcome":"deadline","finishedAt":"2026-01-02T03:04:05.678Z","description":"\"é\"","polls":1}}"#
        );
        Outcome { seq, pin: format!("PIN-{seq}").parse().unwrap(), record: record.into() }
    }

    fn message(outcomes: &[Outcome], format: WebhookFormat, array: bool) -> (Message, serde_json::Value) {
        let message = Message::of(outcomes, format, array).unwrap();
        let body = serde_json::from_slice(&message.body).unwrap();
        (message, body)
    }

    fn record(outcome: &Outcome) -> serde_json::Value {
        serde_json::from_str(&outcome.record).unwrap()
    }

    #[test]
    fn the_message_of_one_outcome_is_its_exact_record_with_its_id() {
        let outcome = outcome(1);
        let (message, _) = message(std::slice::from_ref(&outcome), WebhookFormat::Record, false);
        assert_eq!(message.body, outcome.record.as_bytes());
        assert_eq!((message.id.to_string().as_str(), message.content_type), (ID, "application/json"));
    }

    #[test]
    fn a_cloud_event_has_the_attributes_of_version_1_0_around_the_record() {
        let outcome = outcome(1);
        let (message, body) = message(std::slice::from_ref(&outcome), WebhookFormat::CloudEvents, false);
        assert_eq!(message.content_type, "application/cloudevents+json");
        let expected = serde_json::json!({
            "specversion": "1.0", "id": ID, "source": "/pinwatch", "type": "pinwatch.outcome.deadline",
            "subject": "PIN-1", "time": "2026-01-02T03:04:05.678Z", "datacontenttype": "application/json",
            "data": record(&outcome),
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn a_batch_is_an_array_in_order_even_if_it_has_one_outcome() {
        let outcomes = [outcome(1), outcome(2)];
        let (_, body) = message(&outcomes, WebhookFormat::Record, true);
        assert_eq!(body, serde_json::json!([record(&outcomes[0]), record(&outcomes[1])]));
        let (alone, body) = message(&outcomes[..1], WebhookFormat::Record, true);
        assert_eq!((alone.id.to_string().as_str(), body.as_array().unwrap().len()), (ID, 1));
        let (events, body) = message(&outcomes, WebhookFormat::CloudEvents, true);
        assert_eq!(events.content_type, "application/cloudevents-batch+json");
        assert_eq!(body[1]["subject"], "PIN-2");
    }

    #[test]
    fn two_batches_have_the_same_id_only_if_they_have_the_same_outcomes() {
        let of = |seqs: &[i64]| {
            let outcomes: Vec<Outcome> = seqs.iter().map(|seq| outcome(*seq)).collect();
            message(&outcomes, WebhookFormat::Record, true).0.id
        };
        assert_eq!(of(&[1, 2, 3]), of(&[1, 2, 3]));
        let ids = [of(&[1, 2, 3]), of(&[1, 2]), of(&[2, 1]), of(&[1]), of(&[2])];
        let distinct: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }

    #[test]
    fn the_example_of_the_specification_has_the_documented_signature() {
        // From the tests of the reference implementations.
        let signer = Signer::new(&["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into()]).unwrap();
        let signature =
            signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, br#"{"test": 2432232314}"#).unwrap();
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn every_secret_signs_and_without_one_there_is_no_signature_header() {
        let message = Message::of(&[outcome(1)], WebhookFormat::Record, false).unwrap();
        let secrets: Vec<SecretString> =
            [1u8, 2].map(|byte| SecretString::from(format!("whsec_{}", BASE64.encode([byte; 24])))).into();
        let [both, first, none] =
            [&secrets[..], &secrets[..1], &[]].map(|secrets| Signer::new(secrets).unwrap());
        let header = |signer| {
            let headers = message.headers(signer, 1_700_000_000);
            assert_eq!(
                (&headers["webhook-id"], &headers["webhook-timestamp"]),
                (&HeaderValue::from_static(ID), &HeaderValue::from_static("1700000000"))
            );
            headers.get("webhook-signature").map(|value| value.to_str().unwrap().to_owned())
        };
        let (both, first) = (header(&both).unwrap(), header(&first).unwrap());
        assert!(both.starts_with(&format!("{first} v1,")) && both.split(' ').count() == 2, "{both}");
        assert_eq!(header(&none), None);
    }

    #[test]
    fn invalid_records_and_secrets_are_refused_without_being_shown() {
        let broken = Outcome { record: "{\"hunter2\":".into(), ..outcome(7) };
        let error = Message::of(&[broken], WebhookFormat::Record, false).unwrap_err().to_string();
        assert!(error.contains("outcome 7") && !error.contains("hunter2"), "{error}");
        let error = Signer::new(&["hunter2".into()]).err().unwrap();
        assert!(!format!("{error}{error:?}").contains("hunter2"));
    }
}
