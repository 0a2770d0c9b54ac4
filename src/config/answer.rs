//! `[api.answer]`: where the deliveries are in an answer, and what their statuses mean.
//!
//! Promises that a status has one meaning, and that every pointer is valid. Must not know how an answer is read.

use std::collections::BTreeMap;
use std::sync::Arc;

use config::ValueKind;

use super::preset::BY_DEFAULT;
use super::read::text_of;
use super::section::{Section, quoted};
use crate::json_pointer::Pointer;

/// The longest status, in bytes, as in `poll`: a longer one makes an answer unreadable.
const MAX_STATUS: usize = 128;

/// The most statuses of one list.
const MOST_STATUSES: usize = 256;

/// `[api.answer]`. The pointers other than `deliveries` lead from a delivery.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The array of deliveries, or an object that is the only one.
    pub deliveries: Pointer,
    /// The PIN ID, if deliveries have it.
    pub id: Option<Pointer>,
    pub status: Pointer,
    pub description: Option<Pointer>,
    /// The explicit flag that says whether a delivery is final, if there is one.
    pub is_final: Option<Pointer>,
    /// What each listed status means.
    pub statuses: BTreeMap<Arc<str>, Treatment>,
}

/// What a listed status means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// It will change.
    Waiting,
    /// It will not change, and does not say whether the message was delivered.
    Final,
    /// It is final, and the message was delivered.
    Delivered,
    /// It is final, and the message was not delivered.
    Failed,
}

impl Treatment {
    /// Each with the key of its list.
    const LISTS: [(&'static str, Self); 4] = [
        ("waiting_statuses", Self::Waiting),
        ("final_statuses", Self::Final),
        ("delivered_statuses", Self::Delivered),
        ("failed_statuses", Self::Failed),
    ];

    /// The key of its list.
    pub fn list(self) -> &'static str {
        Self::LISTS.iter().find(|(_, treatment)| *treatment == self).map_or("", |(key, _)| key)
    }

    pub fn is_final(self) -> bool {
        self != Self::Waiting
    }
}

impl Section<'_> {
    /// Reads `[api.answer]`, after the preset has put its values there. Returns `Some(None)` if all of them are the default,
    /// which has a reader of its own.
    pub fn answer(&mut self, key: &'static str) -> Option<Option<Answer>> {
        let value = self.value(key)?;
        let is_default = matches!(&value.kind, ValueKind::Table(values)
            if values.values().all(|value| value.origin() == Some(BY_DEFAULT)));
        let name = self.full(key);
        let answer = Section::read_table(&name, Some(value), self.report, Answer::read)?;
        Some((!is_default).then_some(answer))
    }

    fn pointer(&mut self, key: &'static str) -> Option<Pointer> {
        self.parsed(key, "", str::parse)
    }

    /// Reads a pointer; `""` means that there is none.
    fn optional_pointer(&mut self, key: &'static str) -> Option<Option<Pointer>> {
        self.parsed(key, "", |text| if text.is_empty() { Ok(None) } else { text.parse().map(Some) })
    }

    fn statuses(&mut self, key: &'static str) -> Option<Vec<Arc<str>>> {
        let statuses = self.items(key, "statuses", status)?;
        if statuses.len() > MOST_STATUSES {
            return self.refuse(key, format!("must have at most {MOST_STATUSES} statuses"));
        }
        Some(statuses)
    }
}

impl Answer {
    fn read(section: &mut Section) -> Option<Self> {
        let deliveries = section.pointer("deliveries");
        let id = section.optional_pointer("id");
        let status = section.pointer("status");
        let description = section.optional_pointer("description");
        let is_final = section.optional_pointer("final");
        let lists = Treatment::LISTS.map(|(key, treatment)| (section.statuses(key), key, treatment));
        let mut statuses = BTreeMap::new();
        for (list, key, treatment) in lists {
            for status in list? {
                match statuses.insert(status.clone(), treatment) {
                    Some(other) if other != treatment => {
                        let reason = format!(
                            "must not have {}, which is in {} too: a status has one meaning",
                            quoted(&status),
                            section.full(other.list())
                        );
                        return section.refuse(key, reason);
                    }
                    _ => {}
                }
            }
        }
        Some(Self {
            deliveries: deliveries?,
            id: id?,
            status: status?,
            description: description?,
            is_final: is_final?,
            statuses,
        })
    }
}

/// Converts a status to the text that is compared with an answer's.
fn status(written: &ValueKind) -> Result<Arc<str>, String> {
    let text = match written {
        ValueKind::I64(number) => number.to_string(),
        ValueKind::Boolean(flag) => flag.to_string(),
        // 1.50 and 1.5 are different texts, and TOML's reader does not keep which was written.
        ValueKind::Float(_) => {
            return Err("must have such a number in quotation marks, as the answer writes it".to_owned());
        }
        written => text_of(written)?.to_owned(),
    };
    if text.is_empty() || text.len() > MAX_STATUS {
        return Err(format!("must have only statuses of 1 to {MAX_STATUS} bytes"));
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{load, table};
    use super::*;

    fn answer(text: &str) -> Option<Answer> {
        load(text).unwrap().api.answer
    }

    #[test]
    fn the_default_preset_uses_its_own_reader_unless_a_key_overrides_it() {
        assert_eq!(answer(""), None);
        assert_eq!(answer("api.preset = \"infobip-2fa-pin\""), None);
        assert_eq!(answer("[api.answer]"), None);
        let overridden = answer("api.answer.final = \"\"").unwrap();
        assert_eq!((overridden.is_final, overridden.status.as_str()), (None, "/status"));
        assert!(answer("api = {preset = \"vonage-verify\", username = \"u\", password = \"p\"}").is_some());
    }

    #[test]
    fn a_pointer_or_a_list_that_can_not_be_used_is_refused_with_its_key() {
        let pointer = "must be a JSON pointer";
        table(&[
            (
                "a name alone is no pointer",
                "api.answer.status = \"status\"",
                &format!("api.answer.status: {pointer}"),
            ),
            (
                "nor is a wrong escape",
                "api.answer.deliveries = \"/a~b\"",
                &format!("api.answer.deliveries: {pointer}"),
            ),
            (
                "nothing is behind the last",
                "api.answer.final = \"/a/-\"",
                &format!("api.answer.final: {pointer}"),
            ),
            ("a pointer is a string", "api.answer.id = 1", "api.answer.id: must be a string"),
            (
                "a list is a list",
                "api.answer.final_statuses = 1",
                "api.answer.final_statuses: must be a list",
            ),
            (
                "an empty status is none",
                "api.answer.final_statuses = [\"\"]",
                "api.answer.final_statuses: must have only",
            ),
            (
                "a fraction's text is not kept",
                "api.answer.final_statuses = [1.5]",
                "api.answer.final_statuses: must have such a number in quotation marks",
            ),
            (
                "a status has one meaning",
                "api.answer.final_statuses = [\"MESSAGE_DELIVERED\"]",
                "api.answer.delivered_statuses: must not have \"MESSAGE_DELIVERED\", which is in api.answer.final_statuses",
            ),
            (
                "an unknown key is refused",
                "api.answer.statuses = []",
                "api.answer.statuses: [api.answer] has no such key",
            ),
            ("a value is no section", "api.answer = 1", "api.answer: is a section"),
            (
                "an unknown preset is refused",
                "api.preset = \"vonage\"",
                "api.preset: must be \"infobip-2fa-pin\"",
            ),
        ]);
    }

    #[test]
    fn statuses_are_strings_numbers_and_booleans() {
        let lists = "api.answer.delivered_statuses = [\"DONE\", 0, true]\napi.answer.waiting_statuses = \"IN PROGRESS, 1\"";
        let statuses = answer(lists).unwrap().statuses;
        for (status, expected) in [
            ("DONE", Treatment::Delivered),
            ("0", Treatment::Delivered),
            ("true", Treatment::Delivered),
            ("IN PROGRESS", Treatment::Waiting),
            ("1", Treatment::Waiting),
        ] {
            assert_eq!(statuses.get(status), Some(&expected), "{status}");
        }
    }
}
