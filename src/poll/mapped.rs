//! Parses the body of a 200 as `[api.answer]` describes it: the answers of any API but the default preset's, whose parser is in
//! `answer.rs`.
//!
//! Promises the same as that one: an answer is understood whole or not at all, sizes are bounded, and the time it takes grows no
//! faster than the body. A delivery is final only by its flag or by a listed status, and nothing but a listed status says that a
//! message was delivered. A pointer that leads nowhere makes the answer unreadable, and the text names it. Pure. Must not know
//! connections or schedules.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::answer::{self, MAX_BODY, MAX_DELIVERIES, MAX_STATUS, clean, fault, text_of};
use super::content::too_large;
use crate::config::{Answer, Treatment};
use crate::http_client::harmless;
use crate::json_pointer::Pointer;
use crate::outcome::{Delivery, Status, Weight};
use crate::pin::PinId;
use crate::text::is_harmful;

/// The deliveries in a 200's body, in its order.
///
/// # Errors
/// What is wrong with the body, as a short text that is safe to log.
pub(super) fn deliveries(by: &Answer, body: &[u8]) -> Result<Vec<Delivery>, String> {
    elements(by, body)?.into_iter().map(|element| delivery(by, element)).collect()
}

/// Whether the body names a different PIN as its subject.
pub(super) fn names_another(by: &Answer, body: &[u8], pin: &PinId) -> bool {
    let Some(id) = &by.id else { return answer::names_another(body, pin) };
    let names = |element: &RawValue| {
        let named = text_at(id, element).ok().flatten().filter(|named| !named.is_empty());
        named.is_some_and(|named| !named.eq_ignore_ascii_case(pin.as_str()))
    };
    elements(by, body).is_ok_and(|elements| elements.into_iter().any(names))
}

/// How one field of an answer was read, for a diagnosis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The field is there and can be used, or need not be there.
    pub is_well: bool,
    /// The key, the pointer, what was found there, and what it means. One line.
    pub what: String,
}

/// How each field of a 200's body is read; of many deliveries, only the first three are described.
pub(super) fn explain(by: &Answer, body: &[u8]) -> Vec<Field> {
    const DESCRIBED: usize = 3;
    let ill = |what: String| Field { is_well: false, what: harmless(&what) };
    let elements = match elements(by, body) {
        Ok(elements) => elements,
        Err(fault) => return vec![ill(fault)],
    };
    let all = elements.len();
    let what = format!(
        "{}: {all} {}",
        key("deliveries", &by.deliveries),
        if all == 1 { "delivery" } else { "deliveries" }
    );
    let mut fields = vec![Field { is_well: true, what: harmless(&what) }];
    for element in elements.into_iter().take(DESCRIBED) {
        let of_one = [
            ("id", by.id.as_ref()),
            ("status", Some(&by.status)),
            ("description", by.description.as_ref()),
            ("final", by.is_final.as_ref()),
        ];
        fields.extend(
            of_one.into_iter().filter_map(|(name, pointer)| Some(field(by, name, pointer?, element))),
        );
        fields.push(match delivery(by, element) {
            Ok(delivery) => read_as(&delivery),
            Err(fault) => ill(fault),
        });
    }
    fields
}

fn field(by: &Answer, name: &str, pointer: &Pointer, element: &RawValue) -> Field {
    let is_required = matches!(name, "id" | "status");
    let (is_well, found) = match text_at(pointer, element) {
        Err(fault) => (false, fault),
        Ok(None) if name == "final" => (true, "nothing, so the lists decide".to_owned()),
        Ok(None) => (!is_required, "nothing".to_owned()),
        Ok(Some(text)) if name == "status" => {
            let list = by
                .statuses
                .get(&*text)
                .map_or("no list, so it is not final without a flag", |found| found.list());
            (true, format!("{text:?}, which is in {list}"))
        }
        Ok(Some(text)) => (true, format!("{text:?}")),
    };
    Field { is_well, what: harmless(&format!("{}: {found}", key(name, pointer))) }
}

/// What a delivery means.
pub(super) fn read_as(delivery: &Delivery) -> Field {
    let means = match (delivery.final_status, delivery.status.delivered()) {
        (false, _) => "not final",
        (true, Some(true)) => "final and delivered",
        (true, Some(false)) => "final and not delivered",
        (true, None) => "final; whether it was delivered is not known",
    };
    Field { is_well: true, what: harmless(&format!("{}: {means}", delivery.status)) }
}

/// The JSON of each delivery.
fn elements<'a>(by: &Answer, body: &'a [u8]) -> Result<Vec<&'a RawValue>, String> {
    if body.len() > MAX_BODY {
        return Err(too_large());
    }
    if body.trim_ascii().is_empty() {
        return Err("the body is empty".to_owned());
    }
    let whole: &RawValue = serde_json::from_slice(body).map_err(fault)?;
    let found = at(&by.deliveries, whole)?.ok_or_else(|| nothing_at("deliveries", &by.deliveries))?;
    if found.get().starts_with('{') {
        return Ok(vec![found]);
    }
    if !found.get().starts_with('[') {
        return Err(format!("{}: is neither an array nor an object", key("deliveries", &by.deliveries)));
    }
    let elements: Vec<&RawValue> = serde_json::from_str(found.get()).map_err(fault)?;
    if elements.len() > MAX_DELIVERIES {
        return Err(format!("more than {MAX_DELIVERIES} deliveries"));
    }
    Ok(elements)
}

fn delivery(by: &Answer, element: &RawValue) -> Result<Delivery, String> {
    let found = |pointer: &Pointer| text_at(pointer, element);
    let of_optional = |pointer: Option<&Pointer>| pointer.map_or(Ok(None), found);
    let status = found(&by.status)?;
    // No decision depends on it, so a description of another type invalidates no answer.
    let description = of_optional(by.description.as_ref()).ok().flatten().and_then(|text| clean(&text));
    if let Some(id) = &by.id
        && found(id)?.is_none_or(|id| id.is_empty())
    {
        // An API that does not know the PIN, or a gateway, may say so in a 200.
        let said = [status.as_deref(), description.as_deref()].into_iter().flatten().collect::<Vec<_>>();
        let said = if said.is_empty() { String::new() } else { format!("; it says: {}", said.join(": ")) };
        return Err(harmless(&format!("{}{said}", nothing_at("id", id))));
    }
    let Some(status) = status else { return Err(nothing_at("status", &by.status)) };
    if status.is_empty() || status.len() > MAX_STATUS || status.chars().any(is_harmful) {
        return Err(format!(
            "{}: is no status: empty, over {MAX_STATUS} bytes, or with control characters",
            key("status", &by.status)
        ));
    }
    let flag = of_optional(by.is_final.as_ref())?;
    let listed = by.statuses.get_key_value(&*status);
    let treatment = listed.map(|(_, treatment)| *treatment);
    let final_status = match flag.as_deref().map(str::trim) {
        None | Some("") => treatment.is_some_and(Treatment::is_final),
        Some(flag) if flag.eq_ignore_ascii_case("true") => true,
        Some(flag) if flag.eq_ignore_ascii_case("false") => false,
        Some(_) => {
            let pointer = by.is_final.as_ref().map_or("", Pointer::as_str);
            return Err(harmless(&format!("api.answer.final = {pointer:?}: is neither true nor false")));
        }
    };
    let weight = match treatment {
        Some(Treatment::Delivered) => Weight::Delivered,
        Some(Treatment::Failed) => Weight::Failed,
        Some(Treatment::Waiting) if !final_status => Weight::Pending,
        Some(Treatment::Waiting | Treatment::Final) | None => Weight::Unknown,
    };
    let name = listed.map_or_else(|| Arc::from(&*status), |(name, _)| name.clone());
    Ok(Delivery { status: Status::Other { name, weight }, description, final_status })
}

/// The text of what a pointer leads to; `None` if there is nothing, or null.
fn text_at<'a>(pointer: &Pointer, value: &'a RawValue) -> Result<Option<Cow<'a, str>>, String> {
    at(pointer, value)?.map_or(Ok(None), scalar)
}

/// What a pointer leads to.
fn at<'a>(pointer: &Pointer, value: &'a RawValue) -> Result<Option<&'a RawValue>, String> {
    pointer.find(value).map_err(fault)
}

/// The text of a string, a number or a boolean; the latter two as the body writes them, so that `0`, `0.0` and `-0` are
/// different. `None` for null.
fn scalar(value: &RawValue) -> Result<Option<Cow<'_, str>>, String> {
    match value.get().as_bytes().first() {
        Some(b'"') => text_of(value),
        Some(b'{' | b'[') => Err("an object or an array stands where a text or a number was due".to_owned()),
        Some(b'n') => Ok(None),
        _ => Ok(Some(Cow::Borrowed(value.get()))),
    }
}

fn key(name: &str, pointer: &Pointer) -> String {
    format!("api.answer.{name} = {:?}", pointer.as_str())
}

fn nothing_at(name: &str, pointer: &Pointer) -> String {
    harmless(&format!("nothing is at {}", key(name, pointer)))
}

#[cfg(test)]
#[path = "mapped_tests.rs"]
mod tests;
